import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import lossgeom as lg
from tests.conftest import without_checks
from tests.lipschitz import one_tanh
from tests.smoothness.networks import (
    NETWORKS,
    Sine,
    in_ball,
    jacobians,
    mlp,
    norms,
    problem,
    repeated,
)

RADII = (0.01, 0.3, 3.0)
UNBOUNDED = ("causal",)  # attention to values that grow with the input
each_network = pytest.mark.parametrize("name", NETWORKS)
# radii in turns; the random perceptrons below meet all of them
each_network_at_a_radius = pytest.mark.parametrize(
    ("name", "radius"), list(zip(NETWORKS, itertools.cycle(RADII), strict=False))
)


def bound_everywhere(name, p):
    """The global bound, or infinity where there is none, and an error says so."""
    if name not in UNBOUNDED:
        return lg.lipschitz_global(p)
    with pytest.raises(TypeError, match="no bound over all inputs is known for this model, which"):
        lg.lipschitz_global(p)
    return float("inf")


@each_network_at_a_radius
def test_no_sampled_jacobian_is_above_a_certified_bound(name, radius):
    model, x = NETWORKS[name]
    with without_checks():
        local = lg.lipschitz_local(problem(model, x), radius)
        everywhere = bound_everywhere(name, problem(model, x))
    generator = torch.Generator().manual_seed(1)
    y, z = (in_ball(repeated(x, 60), radius, generator) for _ in range(2))
    bound = local.repeat(60)
    assert (norms(jacobians(model, y)) <= bound).all()
    with torch.no_grad():
        change = (model(y) - model(z)).flatten(1).norm(dim=1)
    assert (change <= bound * (y - z).flatten(1).norm(dim=1)).all()
    assert (local <= everywhere).all()


@each_network
def test_the_lower_estimate_is_below_the_upper_bounds(name):
    model, x = NETWORKS[name]
    with without_checks():
        lower = lg.lipschitz_lower(problem(model, x), steps=8)
        inside = lg.lipschitz_lower(problem(model, x), radius=0.3, steps=8)
        local = lg.lipschitz_local(problem(model, x), 0.3)
        everywhere = bound_everywhere(name, problem(model, x))
    assert lower.at_data <= lower.value * (1 + 1e-6)
    assert lower.value <= everywhere
    assert inside.value <= local[inside.example]
    at_point = norms(jacobians(model, lower.point[None])).item()
    assert lower.value <= at_point * (1 + 1e-12)
    assert (inside.point - x[inside.example]).norm() <= 0.3 * (1 + 1e-12)


@each_network
def test_a_ball_of_no_radius_has_the_norm_at_its_centre(name):
    model, x = NETWORKS[name]
    with without_checks():
        local = lg.lipschitz_local(problem(model, x), 0.0)
    torch.testing.assert_close(local, norms(jacobians(model, x)), rtol=1e-6, atol=1e-9)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    widths=st.lists(st.integers(1, 8), min_size=2, max_size=5),
    scale=st.sampled_from([0.1, 1.0, 10.0]),
    radius=st.sampled_from(RADII),
    activation=st.sampled_from([nn.ReLU, nn.Tanh, nn.GELU, Sine]),
)
def test_random_perceptrons(seed, widths, scale, radius, activation):
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = mlp(*widths, activation=activation).double()
    for parameter in model.parameters():
        parameter.data.mul_(scale)
    x = torch.randn(5, widths[0], generator=generator, dtype=torch.float64)
    with without_checks():
        local = lg.lipschitz_local(problem(model, x), radius)
    sampled = norms(jacobians(model, in_ball(repeated(x, 20), radius, generator))).view(20, -1)
    assert (sampled <= local).all()
    if len(widths) == 2:
        torch.testing.assert_close(local.expand(20, -1), sampled, rtol=1e-7, atol=0)


@pytest.mark.quick
def test_linear_networks_in_closed_form():
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 6), nn.Linear(6, 3)).double()
    product = model[2].weight @ model[1].weight @ model[0].weight
    expected = torch.linalg.matrix_norm(product, ord=2).item()
    p = problem(model, torch.randn(3, 5, dtype=torch.float64))
    assert lg.lipschitz_global(p) == pytest.approx(expected, rel=1e-7)
    assert lg.lipschitz_local(p, 2.0).tolist() == pytest.approx([expected] * 3, rel=1e-7)
    assert lg.lipschitz_lower(p).value == pytest.approx(expected, rel=1e-6)
    assert lg.lipschitz_lower(p).value <= expected <= lg.lipschitz_global(p)


def test_one_hidden_layer_by_all_masks():
    torch.manual_seed(0)
    for _ in range(5):
        model = mlp(3, 6, 2).double()
        W1, W2 = model[0].weight.detach(), model[2].weight.detach()
        masks = torch.tensor(list(itertools.product([0.0, 1.0], repeat=6)), dtype=torch.float64)
        exact = norms(W2 * masks[:, None] @ W1).max().item()
        product = (norms(W2) * norms(W1)).item()
        bound = lg.lipschitz_global(problem(model, torch.zeros(1, 3, dtype=torch.float64)))
        assert exact <= bound < product


@pytest.mark.quick
def test_one_tanh_in_closed_form():
    """The slope of a tanh(b x) on [x - r, x + r] is largest where |x| is least."""
    model = one_tanh()
    x = torch.tensor([[0.1], [-1.0], [2.0]], dtype=torch.float64)
    nearest = torch.tensor([0.0, 0.5, 1.5], dtype=torch.float64)
    expected = 6 / torch.cosh(2 * nearest).square()
    torch.testing.assert_close(lg.lipschitz_local(problem(model, x), 0.5), expected)
    assert lg.lipschitz_global(problem(model, x)) == pytest.approx(6.0)


def test_overlapping_windows_count_an_input_twice():
    """The largest input wins in both windows, so that the norm is sqrt(2)."""
    model = nn.Sequential(nn.Conv1d(1, 1, 1, bias=False), nn.MaxPool1d(2, stride=1)).double()
    nn.init.ones_(model[0].weight)
    p = problem(model, torch.tensor([[[0.0, 3.0, 0.0]]], dtype=torch.float64))
    assert lg.lipschitz_lower(p).value == pytest.approx(2**0.5)
    assert lg.lipschitz_global(p) == pytest.approx(2**0.5)
    for radius in (1.0, 10.0):
        assert lg.lipschitz_local(p, radius).item() == pytest.approx(2**0.5)
    assert lg.local_variation_upper(p, 1.0).item() == 0


def test_dead_units_drop_out():
    model = mlp(2, 3, 1).double()
    with torch.no_grad():
        model[0].bias.copy_(torch.tensor([-100.0, -100.0, 100.0]))
    expected = (model[2].weight[0, 2] * model[0].weight[2]).norm().item()
    local = lg.lipschitz_local(problem(model, torch.zeros(1, 2, dtype=torch.float64)), 1.0)
    assert local.item() == pytest.approx(expected)


def test_without_blocks_bounds_are_looser_and_still_hold(monkeypatch):
    from lossgeom.lipschitz.certified import expansions, jacobian_bounds

    tight = {}
    chosen = {name: NETWORKS[name] for name in ("relu", "tanh", "pooled", "residual", "branches")}
    for name, (model, x) in chosen.items():
        with without_checks():
            tight[name] = lg.lipschitz_local(problem(model, x), 0.3)
    monkeypatch.setattr(jacobian_bounds, "BLOCK_NUMBERS", 1)
    monkeypatch.setattr(expansions, "LARGEST", 1)
    generator = torch.Generator().manual_seed(2)
    for name, (model, x) in chosen.items():
        with without_checks():
            loose = lg.lipschitz_local(problem(model, x), 0.3)
        for _ in range(20):
            assert (norms(jacobians(model, in_ball(x, 0.3, generator))) <= loose).all()
        assert (loose >= tight[name] * (1 - 1e-9)).all()


@pytest.mark.parametrize("scale", [1e-300, 1e-150, 1e-8, 1e8, 1e150])
def test_weights_of_extreme_sizes(scale):
    model = mlp(3, 4, 2, activation=nn.Tanh).double()
    with torch.no_grad():
        model[0].weight *= scale
        model[2].weight /= scale
    x = torch.randn(3, 3, dtype=torch.float64)
    with without_checks():
        local, everywhere = (
            lg.lipschitz_local(problem(model, x), 1e-3),
            lg.lipschitz_global(problem(model, x)),
        )
    assert (norms(jacobians(model, x)) <= local).all()
    assert (local <= everywhere).all()
    assert everywhere < 10


def test_chunks_change_nothing(monkeypatch):
    from lossgeom.lipschitz.certified import jacobian_bounds

    model, x = NETWORKS["pooled"]
    whole = lg.lipschitz_local(problem(model, x), 0.3)
    monkeypatch.setattr(jacobian_bounds, "CHUNK_NUMBERS", 1)
    torch.testing.assert_close(lg.lipschitz_local(problem(model, x), 0.3), whole)


def test_float32_models_are_bounded_in_float64():
    model, x = NETWORKS["gelu"]
    single = mlp(4, 7, 5, 3, activation=nn.GELU)
    single.load_state_dict(model.state_dict())
    double = mlp(4, 7, 5, 3, activation=nn.GELU).double()
    double.load_state_dict(single.state_dict())
    bound = lg.lipschitz_local(problem(single, x.float()), 0.1)
    assert bound.dtype == torch.float64
    torch.testing.assert_close(bound, lg.lipschitz_local(problem(double, x.float().double()), 0.1))


def test_at_other_parameters():
    model, x = NETWORKS["relu"]
    p = problem(model, x)
    linear_in_the_last_layer = problem(model, x, parameters="4.*")
    twice = linear_in_the_last_layer.at(2 * linear_in_the_last_layer.theta)
    torch.testing.assert_close(lg.lipschitz_local(twice, 0.1), 2 * lg.lipschitz_local(p, 0.1))
    assert lg.lipschitz_global(twice) == pytest.approx(2 * lg.lipschitz_global(p))


def test_same_seed_same_bits_and_no_trace():
    from tests import reference

    model, x = NETWORKS["relu"]
    before = reference.fingerprint(model)
    with without_checks():
        first, second = (lg.lipschitz_lower(problem(model, x), seed=3) for _ in range(2))
        lg.lipschitz_local(problem(model, x), 0.1)
    assert first.value == second.value
    assert torch.equal(first.point, second.point)
    assert reference.fingerprint(model)[:4] == before[:4]
