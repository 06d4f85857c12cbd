"""Sharpening, self-stabilisation and the plateau of SGD, beside closed forms and differences."""

import math

import pytest
import torch
from torch import nn

import lossgeom as lg
from lossgeom.stability.self_stabilisation import curvature_gradient
from tests.problems import CASES, mlp


class Cubic(nn.Module):
    """Two parameters: an oscillating x and a y that sets its curvature."""

    def __init__(self, x, y):
        super().__init__()
        self.at = nn.Parameter(torch.tensor([x, y], dtype=torch.float64))

    def forward(self, inputs):
        return self.at.expand(len(inputs), -1)


def cubic(x, y, *, slope=0.5, coupling=2.0):
    """The loss (3 + coupling y) x^2 / 2 - slope y, whose sharpness is 3 + coupling y at x = 0."""

    def terms(outputs, batch):
        a, b = outputs.unbind(1)
        return ((3 + coupling * b) * a.square() / 2 - slope * b).sum(), len(outputs)

    data = [(torch.zeros(2, 1), torch.zeros(2, 1))]
    return lg.Problem(Cubic(x, y), terms, data, check=False)


@pytest.mark.quick
def test_coefficients_of_a_cubic():
    found = lg.self_stabilisation(cubic(0.0, 0.25), tol=1e-8)
    assert found.sharpness.value == pytest.approx(3.5)
    assert found.vector.abs().tolist() == pytest.approx([1, 0])
    assert found.gradient.tolist() == pytest.approx([0, 2], abs=1e-9)
    assert found.sharpening == pytest.approx(0.5 * 2)
    assert found.stabilisation == pytest.approx(4)


def test_what_they_predict_of_gradient_descent_on_a_cubic():
    """S rises by lr alpha from rest, and by lr (alpha - beta x^2 / 2) while x oscillates."""
    lr, y = 0.1, 0.25
    at_rest = lg.self_stabilisation(cubic(0.0, y))
    for x in (0.0, 0.3, math.sqrt(2 * at_rest.sharpening / at_rest.stabilisation)):
        gradient = cubic(x, y).gradient()
        change = -lr * 2.0 * float(gradient[1])
        predicted = lr * (at_rest.sharpening - at_rest.stabilisation * x**2 / 2)
        assert change == pytest.approx(predicted, abs=1e-12)


def test_on_a_network_they_are_differences_of_the_sharpness():
    problem = CASES[0].problem()
    found = lg.self_stabilisation(problem, tol=1e-9)

    def top(theta):
        return float(torch.linalg.eigvalsh(lg.Hessian(problem.at(theta)).dense())[-1])

    def slope(direction, h=1e-4):
        ends = (top(problem.theta + s * h * direction) for s in (1, -1))
        return (next(ends) - next(ends)) / (2 * h)

    g, u = problem.gradient(), found.vector
    across = g - (g @ u) * u
    assert -slope(across) == pytest.approx(found.sharpening, rel=1e-4)
    unit = found.gradient / found.gradient.norm()
    assert slope(unit) ** 2 == pytest.approx(found.stabilisation, rel=1e-4)
    assert abs(float(found.gradient @ u)) < 1e-9


def test_the_gradient_of_a_curvature_is_summed_over_batches():
    case = CASES[0]
    u = torch.linspace(-1, 1, case.problem().theta.numel()).double()
    whole = case.problem([(case.inputs, case.targets)])
    parts = curvature_gradient(case.problem(), u)
    assert torch.allclose(parts, curvature_gradient(whole, u), atol=1e-12)


def test_third_derivatives_are_tried_first():
    model = nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.Linear(5, 2))
    data = [(torch.randn(8, 3), torch.randint(2, (8,)))]
    with pytest.raises(lg.DerivativeError, match="the third derivative in LayerNorm"):
        lg.self_stabilisation(lg.Problem(model, "cross_entropy", data))
    lg.self_stabilisation(lg.Problem(mlp(3, 5, 2), "cross_entropy", data))


def line(n=12, seed=0):
    """One parameter w, whose gradient on an example is w - y."""
    y = torch.randn(n, 1, generator=torch.Generator().manual_seed(seed)).double()
    model = nn.Linear(1, 1, bias=False).double()
    return model, torch.ones(n, 1).double(), y


def test_noise_of_batches_along_a_direction():
    """Without replacement it is (n - B) / (B (n - 1)) times that of single examples."""
    model, x, y = line()
    problem = lg.Problem(model, "squared_error", [(x, y)])
    single = float(y.var(correction=0))
    for size in (1, 3, 6):
        found = lg.noise_along(problem, 7 * torch.ones(1), batch_size=size, batches=100)
        exact = single * (12 - size) / (size * 11)
        assert abs(found.value - exact) < 4 * found.stderr
        if size == 6:  # with replacement it would be twice that
            assert abs(found.value - single / size) > 4 * found.stderr
    assert lg.noise_along(problem, torch.ones(1), batch_size=12).value == 0


@pytest.mark.quick
def test_two_batches_tell_little_of_their_noise():
    """Their squares are the same, which is no sign that they are exact."""
    model, x, y = line()
    data = [(x[:6], y[:6]), (x[6:], y[6:])]
    for found in (
        lg.noise_along(lg.Problem(model, "squared_error", data), torch.ones(1)),
        lg.noise_along(
            lg.Problem(model, "squared_error", data), torch.ones(1), batch_size=6, batches=2
        ),
    ):
        assert found.stderr == pytest.approx(math.sqrt(2) * found.value)


def test_noise_of_the_own_batches_of_an_epoch():
    """In the mean over all orders, it is that of batches drawn independently."""
    model, x, y = line(6)
    single = float(y.var(correction=0))
    found = []
    for order in [torch.randperm(6) for _ in range(60)]:
        data = [(x[order][i : i + 2], y[order][i : i + 2]) for i in (0, 2, 4)]
        problem = lg.Problem(model, "squared_error", data, check=False)
        found.append(lg.noise_along(problem, torch.ones(1)).value)
    values = torch.tensor(found)
    exact = single * (6 - 2) / (2 * 5)
    assert abs(float(values.mean()) - exact) < 4 * float(values.std()) / math.sqrt(60)


@pytest.mark.quick
def test_the_plateau_of_noisy_descent_on_a_cubic():
    """The mean sharpness of a simulation, below 2 / lr by the predicted gap."""
    lr, slope, coupling, sigma, runs = 0.1, 0.02, 2.0, 0.5, 500
    alpha, beta = slope * coupling, coupling**2
    gap = lg.plateau_gap(lr, alpha, beta, sigma**2)
    generator = torch.Generator().manual_seed(0)
    x, y = torch.zeros(runs).double(), torch.full((runs,), (2 / lr - gap - 3) / coupling).double()
    seen = []
    for step in range(1500):
        noise = sigma * torch.randn(runs, generator=generator, dtype=torch.float64)
        sharp = 3 + coupling * y
        x, y = x - lr * (sharp * x + noise), y - lr * (coupling * x.square() / 2 - slope)
        if step >= 500:
            seen.append(float(sharp.mean()))
    measured = 2 / lr - sum(seen) / len(seen)
    assert measured == pytest.approx(gap, rel=0.1)
    assert gap == pytest.approx(0.625)  # far more than without noise, of 20


def test_errors():
    model, x, y = line()
    problem = lg.Problem(model, "squared_error", [(x, y)])
    with pytest.raises(lg.UndefinedError, match="all examples are in one batch"):
        lg.noise_along(problem, torch.ones(1))
    with pytest.raises(lg.UndefinedError, match="nothing drives the sharpness to the edge"):
        lg.plateau_gap(0.1, -1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="expected lr > 0"):
        lg.plateau_gap(0.0, 1.0, 1.0, 1.0)
    for settings in ({"batches": 1}, {"batch_size": 0}, {"batch_size": 13}, {"seed": -1}):
        with pytest.raises(ValueError, match="expected"):
            lg.noise_along(problem, torch.ones(1), **settings)
