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
    in_ball,
    jacobians,
    mlp,
    norms,
    problem,
    repeated,
)

RADII = (0.01, 0.3, 3.0)
# radii in turns; the random perceptrons below meet all of them
each_network_at_a_radius = pytest.mark.parametrize(
    ("name", "radius"), list(zip(NETWORKS, itertools.cycle(RADII), strict=False))
)


@each_network_at_a_radius
def test_sampled_pairs_are_below_and_lower_is_below_upper(name, radius):
    model, x = NETWORKS[name]
    with without_checks():
        bracket = lg.local_variation(problem(model, x), radius, steps=8)
        local = lg.lipschitz_local(problem(model, x), radius)
    assert (bracket.lower >= 0).all()
    assert (bracket.lower <= bracket.upper).all()
    assert (bracket.upper <= 2 * local * (1 + 1e-12)).all()
    generator = torch.Generator().manual_seed(1)
    y, z = (jacobians(model, in_ball(repeated(x, 40), radius, generator)) for _ in range(2))
    assert (norms(y - z) <= bracket.upper.repeat(40)).all()


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    widths=st.lists(st.integers(1, 8), min_size=2, max_size=5),
    radius=st.sampled_from(RADII),
    activation=st.sampled_from([nn.ReLU, nn.Sigmoid, nn.SiLU]),
)
def test_random_perceptrons(seed, widths, radius, activation):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = mlp(*widths, activation=activation).double()
        x = torch.randn(4, widths[0], dtype=torch.float64)
    with without_checks():
        bracket = lg.local_variation(problem(model, x), radius, steps=15, restarts=1)
    assert (bracket.lower <= bracket.upper).all()
    generator = torch.Generator().manual_seed(seed)
    y, z = (jacobians(model, in_ball(repeated(x, 10), radius, generator)) for _ in range(2))
    assert (norms(y - z) <= bracket.upper.repeat(10)).all()


def test_linear_networks_do_not_vary():
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)).double()
    bracket = lg.local_variation(problem(model.eval(), torch.randn(3, 4).double()), 10.0)
    assert bracket.max == (0.0, 0.0)
    assert (bracket.tightness == 1).all()


@pytest.mark.quick
def test_one_tanh_in_closed_form():
    """The slope of tanh(2 x) is even and falls with |x|."""
    model = one_tanh()
    x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)

    def slope(z):
        return 6 / torch.cosh(2 * torch.tensor(z, dtype=torch.float64)).square()

    expected = torch.stack([slope(0.0) - slope(0.5), slope(0.5) - slope(1.5)])
    bracket = lg.local_variation(problem(model, x), 0.5)
    torch.testing.assert_close(bracket.upper, expected)
    torch.testing.assert_close(bracket.lower, expected, rtol=1e-3, atol=0)


@each_network_at_a_radius
def test_jacobians_change_no_faster_than_certified(name, radius):
    model, x = NETWORKS[name]
    with without_checks():
        steepest = lg.jacobian_lipschitz(problem(model, x), radius)
        variation = lg.local_variation_upper(problem(model, x), radius)
    assert (variation <= 2 * radius * steepest * (1 + 1e-12)).all()
    generator = torch.Generator().manual_seed(1)
    y, z = (in_ball(repeated(x, 20), radius, generator) for _ in range(2))
    change = norms(jacobians(model, y) - jacobians(model, z))
    steepest = steepest.repeat(20)
    assert (change <= steepest * (y - z).flatten(1).norm(dim=1) * (1 + 1e-9)).all()


@pytest.mark.quick
def test_second_derivatives_in_closed_form():
    """Of -3 tanh(2 x): 24 abs(tanh) / cosh^2, and 16 / sqrt(3) where tanh^2 is 1 / 3."""
    model = one_tanh()
    x = torch.tensor([[0.0], [0.1], [2.0]], dtype=torch.float64)
    near = 24 * torch.tensor(0.6).tanh() / torch.cosh(torch.tensor(0.6)) ** 2
    far = 24 * torch.tensor(3.6).tanh() / torch.cosh(torch.tensor(3.6)) ** 2
    found = lg.jacobian_lipschitz(problem(model, x), 0.2)
    assert found[1:].tolist() == pytest.approx([near.item(), far.item()], rel=1e-5)
    everywhere = lg.jacobian_lipschitz(problem(model, x), 100.0)
    assert everywhere.tolist() == pytest.approx([16 / 3**0.5] * 3)
    ends = x[1] + torch.tensor([[0.19], [0.2]], dtype=torch.float64)  # half of it is too little
    change = (jacobians(model, ends[:1]) - jacobians(model, ends[1:])).abs().item()
    assert change > 0.01 * found[1] / 2


@pytest.mark.quick
def test_slopes_that_jump_have_no_second_derivatives():
    model = mlp(1, 1, 1).double()
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), (1.0, 0.0, 1.0, 0.0), strict=True):
            parameter.fill_(value)
    x = torch.tensor([[1.0], [0.1]], dtype=torch.float64)
    assert lg.jacobian_lipschitz(problem(model, x), 0.5).tolist() == [0.0, float("inf")]


def test_never_above_the_recursion_for_smooth_networks():
    """2 r Lip(J), with Lip(J) by B <- s1 |W| B and L <- s1 |W| L + s2 |W|^2 B^2 over layers."""
    for activation, s1, s2 in ((nn.Tanh, 1.0, 4 / 27**0.5), (nn.Sigmoid, 0.25, 1 / 108**0.5)):
        torch.manual_seed(1)
        model = mlp(3, 8, 8, 2, activation=activation).double()
        x = torch.randn(5, 3, dtype=torch.float64)
        B, L = 1.0, 0.0
        for layer in model[:-1:2]:
            W = norms(layer.weight.detach()).item()
            B, L = s1 * W * B, s1 * W * L + s2 * W**2 * B**2
        L = norms(model[-1].weight.detach()).item() * L
        for radius in (1e-3, 0.1, 1.0):
            with without_checks():
                upper = lg.local_variation_upper(problem(model, x), radius)
            assert (upper <= 2 * radius * L * (1 + 1e-8)).all()


def test_never_above_the_second_derivatives_of_one_hidden_layer():
    """2 r sup abs(phi'') || W1^T diag abs(W2) W1 || for scalar outputs."""
    for activation, s2 in ((nn.Tanh, 4 / 27**0.5), (nn.Sigmoid, 1 / 108**0.5)):
        torch.manual_seed(2)
        model = mlp(6, 8, 1, activation=activation).double()
        nn.init.orthogonal_(model[0].weight)
        x = torch.randn(5, 6, dtype=torch.float64)
        W1, W2 = model[0].weight.detach(), model[2].weight.detach()
        L = s2 * norms(W1.T @ (W2.abs().T * W1)).item()
        for radius in (1e-3, 0.1, 1.0):
            with without_checks():
                upper = lg.local_variation_upper(problem(model, x), radius)
            assert (upper <= 2 * radius * L * (1 + 1e-8)).all()


def test_never_above_twice_the_norm_of_the_product_of_absolute_values():
    """Of piecewise linear networks; equal where units are alone."""
    torch.manual_seed(3)
    deep = mlp(3, 6, 6, 2).double()
    alone = mlp(4, 4, 4).double()
    for layer in alone[::2]:
        layer.weight.data = torch.diag(torch.arange(1.0, 5.0).double())
    for model in (deep, alone):
        first, *others = (layer.weight.detach().abs() for layer in model[::2])
        for W in others:
            first = W @ first
        crude = norms(first).item()
        x = torch.randn(5, first.shape[1], dtype=torch.float64)
        with without_checks():
            upper = lg.local_variation_upper(problem(model, x), 100.0)
            bound = lg.lipschitz_global(problem(model, x))
        assert bound <= crude * (1 + 1e-8)
        assert (upper <= 2 * crude * (1 + 1e-8)).all()
    assert bound == pytest.approx(16.0)
    assert upper.tolist() == pytest.approx([16.0] * 5)  # of which 1 x 4 or 4 x 4 switch


def test_small_balls_are_bracketed_tightly():
    model, x = NETWORKS["tanh"]
    with without_checks():
        bracket = lg.local_variation(problem(model, x), 1e-3)
    assert bracket.tightness.min() > 0.2  # of first order in the radius on both sides


def test_the_lower_estimate_needs_no_graph():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(2, 2)

        def forward(self, x):
            return self.linear(x).tanh() if x.sum() > -1e9 else x

    data = [(torch.zeros(3, 2), torch.zeros(3, 2))]
    p = lg.Problem(Branching(), "squared_error", data)
    assert (lg.local_variation_lower(p, 1.0) > 0).all()
    with pytest.raises(TypeError, match=r"cannot be traced by torch.fx"):
        lg.local_variation_upper(p, 1.0)


def test_same_seed_same_bits():
    model, x = NETWORKS["relu"]
    with without_checks():
        first, second, other = (
            lg.local_variation_lower(problem(model, x), 0.5, steps=5, seed=seed)
            for seed in (1, 1, 2)
        )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_errors():
    model, x = NETWORKS["relu"]
    with pytest.raises(ValueError, match="expected a finite radius >= 0, got inf"):
        lg.local_variation(problem(model, x), float("inf"))
    with pytest.raises(ValueError, match="expected a finite radius >= 0, got -1"):
        lg.local_variation_upper(problem(model, x), -1.0)
    with pytest.raises(ValueError, match="expected restarts of at least 1, got 0"):
        lg.local_variation_lower(problem(model, x), 1.0, restarts=0)
