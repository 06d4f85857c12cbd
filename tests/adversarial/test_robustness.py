"""Closed forms, brute force, and what must lie below what."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import lossgeom as lg
from tests.conftest import without_checks
from tests.smoothness.networks import NETWORKS, in_ball, jacobians, mlp, norms

EPS = (0.0, 0.05, 0.3, 2.0)
NORMS = ("l2", "linf")
each_norm = pytest.mark.parametrize("norm", NORMS)


def classifier(model: nn.Module, x, y=None) -> lg.Problem:
    """With the classes that the model gives its inputs, where there are no others."""
    if y is None:
        with torch.no_grad():
            y = model(x).argmax(1)
    return lg.Problem(model, "cross_entropy", [(x, y)], check=False)


def linear(D=6, C=4, N=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    model = nn.Linear(D, C).double()
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return model, torch.randn(N, D, generator=generator, dtype=torch.float64)


def worst_vertex(J):
    """The largest ||J s|| over all vertices s of the unit cube."""
    signs = itertools.product([-1.0, 1.0], repeat=J.shape[-1])
    return (J @ torch.tensor(list(signs), dtype=J.dtype).T).norm(dim=1).amax(1)


@pytest.mark.quick
def test_linear_models_in_closed_form_in_l2():
    model, x = linear()
    W, y = model.weight.detach(), model(x).argmax(1)
    found = lg.robustness(classifier(model, x), EPS)
    eps = torch.tensor(EPS, dtype=torch.float64)[:, None]
    change = found.logit_change
    expected = (eps * norms(W)).expand(-1, len(x))
    torch.testing.assert_close(change.lower, expected, rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(change.first_order, expected)
    torch.testing.assert_close(change.upper, expected, rtol=1e-7, atol=0)
    assert change.first_order_lower is None
    assert (change.lower <= change.upper).all()
    logits = model(x).detach()
    rivals = logits.scatter(1, y[:, None], -torch.inf)
    margin = logits.gather(1, y[:, None])[:, 0] - rivals.amax(1)
    torch.testing.assert_close(found.margins, margin)
    torch.testing.assert_close(
        found.certified_radii, margin / (2**0.5 * norms(W)), rtol=1e-6, atol=0
    )
    slopes = (W[y][:, None] - W).norm(dim=2)
    gaps = logits.gather(1, y[:, None]) - logits
    true = torch.where(slopes > 0, gaps / slopes, torch.inf).amin(1)
    assert (found.certified_radii < true).all()
    least = (gaps - eps[:, :, None] * slopes).scatter(2, y.expand(4, -1)[..., None], torch.inf)
    torch.testing.assert_close(found.attacked_margins, least.amin(2), rtol=1e-3, atol=1e-3)
    assert found.accuracy_under_attack.tolist() == (true > eps).double().mean(1).tolist()


def test_linear_models_in_closed_form_in_linf():
    model, x = linear()
    W, y = model.weight.detach(), model(x).argmax(1)
    found = lg.robustness(classifier(model, x), EPS, norm="linf", restarts=8)
    eps = torch.tensor(EPS, dtype=torch.float64)[:, None]
    change = found.logit_change
    expected = (eps * worst_vertex(W[None])).expand(-1, len(x))
    assert change.first_order is None
    torch.testing.assert_close(change.first_order_lower, expected)
    torch.testing.assert_close(change.lower, expected)
    assert (change.lower <= change.upper).all()
    gaps = model(x).detach().gather(1, y[:, None]) - model(x).detach()
    slopes = (W[y][:, None] - W).abs().sum(2)
    least = (gaps - eps[:, :, None] * slopes).scatter(2, y.expand(4, -1)[..., None], torch.inf)
    torch.testing.assert_close(found.attacked_margins, least.amin(2), rtol=1e-3, atol=1e-3)
    in_l2 = lg.certified_radius(classifier(model, x))
    torch.testing.assert_close(found.certified_radii, in_l2 / 6**0.5)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    widths=st.lists(st.integers(2, 8), min_size=2, max_size=4),
    activation=st.sampled_from([nn.ReLU, nn.Tanh, nn.GELU]),
    scale=st.sampled_from([0.3, 1.0, 3.0]),
    norm=st.sampled_from(NORMS),
)
def test_certified_and_found_bracket_the_truth(seed, widths, activation, scale, norm):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = mlp(*widths, activation=activation).double()
        x = torch.randn(6, widths[0], dtype=torch.float64)
        y = torch.randint(widths[-1], (6,))
    for parameter in model.parameters():
        parameter.data.mul_(scale)
    with without_checks():
        found = lg.robustness(classifier(model, x, y), EPS, norm=norm, steps=8, restarts=2)
    check_order(found)
    radius = found.certified_radii * (widths[0] ** 0.5 if norm == "linf" else 1)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(30):
        steps = in_ball(torch.zeros_like(x), 1.0, generator)
        kept = model(x + radius.clamp(max=1e6)[:, None] * steps).argmax(1) == y
        assert kept[radius > 0].all()


def check_order(found: lg.Robustness) -> None:
    certified, attacked = found.certified_accuracy, found.accuracy_under_attack
    assert (certified <= attacked).all()
    assert (attacked <= found.clean_accuracy).all()
    assert attacked[0] == found.clean_accuracy
    assert (attacked.diff() <= 0).all()
    assert ((found.certified_radii > found.eps[:, None]) <= found.withstood).all()
    assert (found.logit_change.lower <= found.logit_change.upper).all()
    assert (found.logit_change.lower.diff(dim=0) >= 0).all()
    assert (found.logit_change.lower[0] == 0).all()


# norms in turns; the random perceptrons above meet both
@pytest.mark.parametrize(
    ("name", "norm"), list(zip(NETWORKS, itertools.cycle(NORMS), strict=False))
)
def test_networks_of_every_kind(name, norm):
    model, x = NETWORKS[name]
    with without_checks():
        found = lg.robustness(classifier(model, x), EPS, norm=norm, steps=8, restarts=2)
    check_order(found)
    assert found.clean_accuracy == 1.0
    assert (found.certified_radii > 0).all()
    assert found.notes == ()


@each_norm
@pytest.mark.parametrize("bounds", [None, (-0.5, 0.4)])
def test_against_a_grid_on_the_plane(norm, bounds):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = mlp(2, 12, 12, 3, activation=nn.Tanh).double()
        x = torch.rand(8, 2, dtype=torch.float64) * 0.9 - 0.5
    for parameter in model.parameters():
        parameter.data.mul_(3)
    eps = 0.3
    line = torch.linspace(-eps, eps, 201, dtype=torch.float64)
    steps = torch.cartesian_prod(line, line)
    if norm == "l2":
        steps = steps[steps.norm(dim=1) <= eps]
    points = x[:, None] + steps
    valid = torch.ones(points.shape[:2], dtype=torch.bool)
    if bounds is not None:
        valid = ((points >= bounds[0]) & (points <= bounds[1])).all(2)
    logits, at = model(points).detach(), model(x).detach()
    y = at.argmax(1)
    change = torch.where(valid, (logits - at[:, None]).norm(dim=2), 0).amax(1)
    index = y[:, None, None].expand(-1, len(steps), 1)
    margin = logits.gather(2, index)[..., 0] - logits.scatter(2, index, -torch.inf).amax(2)
    margin = torch.where(valid, margin, torch.inf).amin(1)
    found = lg.robustness(classifier(model, x), eps, norm=norm, bounds=bounds, restarts=20)
    assert (found.logit_change.lower[0] >= change * 0.995).all()
    assert (found.attacked_margins[0] <= margin + 0.005 * change).all()
    assert (found.logit_change.lower[0] <= change * 1.02).all()  # a grid misses little
    assert (found.attacked_margins[0] >= margin - 0.02 * change).all()


@each_norm
def test_the_first_order_against_all_vertices_and_singular_values(norm):
    for name in ("relu", "gelu", "pooled"):
        model, x = NETWORKS[name]
        change = lg.logit_change(classifier(model, x), 0.1, norm=norm, restarts=16, steps=1)
        if norm == "l2":
            expected = 0.1 * norms(jacobians(model, x))
            torch.testing.assert_close(change.first_order[0], expected)
        elif x[0].numel() <= 8:
            expected = 0.1 * worst_vertex(jacobians(model, x))
            torch.testing.assert_close(change.first_order_lower[0], expected)


@each_norm
def test_small_attacks_change_what_the_first_order_says(norm):
    model, x = NETWORKS["tanh"]
    change = lg.logit_change(classifier(model, x), 1e-5, norm=norm)
    predicted = change.first_order if norm == "l2" else change.first_order_lower
    torch.testing.assert_close(change.lower, predicted, rtol=1e-3, atol=0)


@each_norm
def test_many_outputs_by_products_alone(norm):
    """More outputs than are worth all their rows."""
    model, x = linear(D=5, C=40)
    change = lg.logit_change(classifier(model, x), 1.0, norm=norm)
    if norm == "l2":
        torch.testing.assert_close(
            change.first_order, norms(model.weight).expand(1, 5), rtol=1e-6, atol=0
        )
    else:
        expected = worst_vertex(model.weight.detach()[None]).expand(1, 5)
        torch.testing.assert_close(change.first_order_lower, expected)
    assert change.notes == ()


@each_norm
@pytest.mark.parametrize("bounds", [None, (-0.5, 0.5)])
def test_attacks_stay_where_they_may(norm, bounds):
    visited = []

    class Recorded(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 2).double()

        def forward(self, x):
            visited.append(x.detach().clone())
            return self.linear(x).sin()

    x = torch.tensor([[0.4, -0.5, 0.1]], dtype=torch.float64)
    p = classifier(Recorded(), x)
    lg.robustness(p, 0.25, norm=norm, bounds=bounds, certify=False)
    steps = torch.cat(visited) - x
    order = 2 if norm == "l2" else torch.inf
    far = torch.linalg.vector_norm(steps, order, dim=1)
    assert far.amax() <= 0.25 * (1 + 1e-12)
    assert far.amax() > 0.2
    if bounds is not None:
        assert torch.cat(visited).abs().amax() <= 0.5


def test_dead_and_constant_models():
    model = mlp(3, 4, 2).double()
    model[0].bias.data.fill_(-100.0)  # no unit is ever on nearby
    model[2].bias.data = torch.tensor([1.0, 0.0], dtype=torch.float64)
    found = lg.robustness(classifier(model, torch.zeros(2, 3, dtype=torch.float64)), 1.0)
    assert (found.logit_change.lower == 0).all()
    assert (found.certified_radii > 10).all()
    for parameter in (model[0].weight, model[2].weight):
        parameter.data.zero_()
    found = lg.robustness(classifier(model, torch.zeros(2, 3, dtype=torch.float64)), 1e9)
    assert found.certified_accuracy.tolist() == [1.0]
    assert (found.certified_radii > 1e9).all()


@pytest.mark.quick
def test_ties_and_mistakes_have_no_radius():
    model = nn.Linear(2, 2, bias=False).double()
    nn.init.eye_(model.weight)
    x = torch.tensor([[1.0, 1.0], [0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    found = lg.robustness(classifier(model, x, torch.tensor([0, 0, 0])), [0.0, 0.1])
    assert found.certified_radii[:2].tolist() == [0.0, 0.0]
    assert found.certified_radii[2] > 0.7
    assert found.clean_accuracy == pytest.approx(1 / 3)
    assert found.certified_accuracy.tolist() == pytest.approx([1 / 3, 1 / 3])


def test_a_finer_tolerance_certifies_no_less():
    model, x = NETWORKS["relu"]
    p = classifier(model, x)
    with without_checks():
        coarse, fine = (lg.certified_radius(p, tol=tol) for tol in (0.1, 1e-6))
        at, above = (
            torch.stack([r * lg.lipschitz_local(p, r.item())[i] for i, r in enumerate(radii)])
            for radii in (fine, fine * 1.0001)
        )
        margins = lg.robustness(p, 0.0, certify=False).margins
    assert (coarse <= fine * (1 + 1e-9)).all()
    assert (fine <= coarse * 1.2).all()
    assert (2**0.5 * at < margins).all()
    assert (2**0.5 * above > margins).all()
