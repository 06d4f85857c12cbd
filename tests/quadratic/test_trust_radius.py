"""The radius in which a Taylor model is right, and the top mode."""

import math

import pytest
import torch
from torch import nn

from lossgeom import Problem
from lossgeom.quadratic import (
    Descent,
    descend_parameters,
    network,
    residuals,
    taylor,
    top_mode,
    top_mode_residual,
    trust_radius,
)
from lossgeom.quadratic.taylor_error import taylor_error
from tests.quadratic.models import double, normal
from tests.quadratic.networks import classification, dense_expansion, regression

pytestmark = pytest.mark.usefixtures("unchecked")


class Power(nn.Module):
    """(1 + theta)^3 and the like, of one parameter."""

    def __init__(self, function) -> None:
        super().__init__()
        self.theta = nn.Parameter(double(1.0))
        self.function = function

    def forward(self, x):
        return x * self.function(self.theta)


def scalar(function, target=8.0):
    return Problem(Power(function), "squared_error", [(double(1)[None], double(target)[None])])


def test_closed_forms():
    """(1 + d)^3 = 1 + 3 d + 3 d^2 + d^3: errors (3 d + d^2) / (3 + 3 d + d^2) and d^2 / (...)."""
    problem = scalar(lambda t: t**3)
    linear = trust_radius(taylor(problem, 1), 0.5)
    quadratic = trust_radius(taylor(problem, 2), 0.5)
    assert linear.radius == pytest.approx((-3 + math.sqrt(21)) / 2, rel=2e-3)
    assert quadratic.radius == pytest.approx((3 + math.sqrt(21)) / 2, rel=2e-3)
    for found in (linear, quadratic):
        assert found.radius < found.beyond <= found.radius * (1 + 1e-3)
    other = trust_radius(taylor(problem, 1), 0.5, direction=double(-3))
    assert other.radius < 1 < linear.radius * 2  # toward the saddle


@pytest.mark.quick
def test_ends_of_the_grid():
    square = taylor(scalar(lambda t: t**2), 2)
    found = trust_radius(square, 1e-6, radii=[0.5, 1.0, 2.0])
    assert (found.radius, found.beyond) == (2.0, math.inf)
    linear = taylor(scalar(lambda t: t**3), 1)
    found = trust_radius(linear, 1e-6, radii=[0.5, 1.0])
    assert (found.radius, found.beyond) == (0.0, 0.5)


def test_the_first_crossing_counts():
    """A model that is wrong in between and right again later."""
    problem = scalar(lambda t: t + 0.5 * torch.sin(2 * math.pi * t) / math.pi)
    model = taylor(problem, 1)
    error, true, one = taylor_error(model), network(problem), double(1)[None]
    assert error(true.at(0.5 * one)) > 0.4
    assert error(true.at(8.0 * one)) > 0.1
    found = trust_radius(model, 0.4, radii=[0.01, 0.5, 100.0])
    assert 0.01 < found.radius < 0.5
    assert error(true.at(found.radius * one)) <= 0.4 < error(true.at(found.beyond * one))


def test_overflow_is_beyond():
    found = trust_radius(taylor(scalar(torch.exp, 80.0), 2), 1e9, radii=[1.0, 10.0, 1e3, 1e5])
    assert 10 < found.radius < found.beyond < 1e3


def test_order_two_reaches_further_in_networks():
    for problem in (regression("layer norm"), classification()):
        for direction in (None, normal(problem.theta.numel(), seed=4)):
            radii = [
                trust_radius(
                    taylor(problem, order), 0.05, direction=direction, radii=[0.01, 0.1, 1, 10]
                ).radius
                for order in (1, 2)
            ]
            assert 0 < radii[0] < radii[1] < math.inf


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"tolerance": 0.0}, "expected tolerance > 0, got 0.0"),
        ({"direction": torch.ones(3)}, r"expected a direction of shape \(26,\), got \(3,\)"),
        ({"direction": torch.zeros(26)}, "finite length above 0, got 0.0"),
        ({"direction": torch.full((26,), math.nan)}, "finite length above 0, got nan"),
        ({"radii": []}, r"radii above 0 that increase, got \[\]"),
        ({"radii": [0.0, 1.0]}, "radii above 0 that increase"),
        ({"radii": [1.0, 1.0]}, "radii above 0 that increase"),
        ({"radii": [1.0, math.inf]}, "radii above 0 that increase"),
    ],
)
def test_bad_arguments(arguments, text):
    with pytest.raises(ValueError, match=text):
        trust_radius(taylor(regression()), **arguments)


@pytest.mark.parametrize("name", ["tanh", "layer norm"])
def test_top_mode_beside_all_entries(name):
    problem = regression(name, sizes=(4, 2))
    f, J, Q = dense_expansion(problem)
    y = torch.cat([targets.reshape(-1) for _, targets in problem.batches])
    s = 1 / math.sqrt(6)
    z, J, Q = s * (f - y), s * J, s * Q
    values, vectors = torch.linalg.eigh(J @ J.T)
    v = vectors[:, -1] * (vectors[:, -1] @ z).sign()
    w = J.T @ v / values[-1].sqrt()
    mode = top_mode(problem, directions=60, matvecs=len(problem.theta))
    close = {"rtol": 1e-3, "atol": 1e-4}
    torch.testing.assert_close(mode.eigenvalue, values[-1].item(), rtol=1e-6, atol=0)
    torch.testing.assert_close(mode.v, v, **close)
    torch.testing.assert_close(mode.w, w, **close)
    vQ = torch.einsum("a,aij->ij", v, Q)
    assert mode.residual == pytest.approx((v @ z).item(), rel=1e-3)
    assert mode.residual > 0
    assert mode.curvature == pytest.approx((w @ vQ @ w).item(), rel=1e-2)
    assert mode.norm.value == pytest.approx(vQ.norm().item(), rel=1e-3)
    assert mode.norm.stderr == 0
    # the mean over random unit vectors, from draws of its own
    u = torch.nn.functional.normalize(normal(4000, len(f), seed=11), dim=1)
    expected = torch.einsum("na,aij->nij", u, Q).flatten(1).norm(dim=1)
    error = math.hypot(mode.typical.stderr, expected.std().item() / math.sqrt(4000))
    assert abs(mode.typical.value - expected.mean().item()) < 4 * error
    assert mode.ratio.value == pytest.approx(mode.norm.value / mode.typical.value)


def test_sampled_norms_know_their_error():
    exact = top_mode(regression("convolution"), matvecs=100)
    sampled = top_mode(regression("convolution"), matvecs=4, seed=1)
    assert sampled.norm.stderr > 0
    assert abs(sampled.norm.value - exact.norm.value) < 5 * sampled.norm.stderr
    again = top_mode(regression("convolution"), matvecs=4, seed=1)
    assert (again.norm, again.typical) == (sampled.norm, sampled.typical)
    assert 0 < sampled.ratio.stderr < math.inf


def test_top_mode_of_a_linear_network():
    """No second derivative, and no ratio of nothing to nothing."""
    mode = top_mode(regression("two linear").with_parameters("2.*"))
    assert (mode.norm.value, mode.typical.value, mode.curvature) == (0, 0, 0)
    assert math.isnan(mode.ratio.value)


def test_the_residual_on_the_top_mode_along_a_run():
    problem = regression(sizes=(4, 2))
    v = top_mode(problem).v
    observe = {"z": residuals, "top": top_mode_residual(v), "down": top_mode_residual(-v)}
    for model in (network(problem), taylor(problem)):
        found = descend_parameters(model, Descent(20, 0.5, every=1, observe=observe))
        assert found.recorded["top"].shape == (21, 1)
        assert torch.equal(found.recorded["down"], -found.recorded["top"])
        assert found.recorded["top"][0].item() == pytest.approx(top_mode(problem).residual)
        d = found.final["theta"]
        last = model.at(d).tangent.jacobian.dense()
        top = torch.linalg.svd(last)[0][:, 0]
        expected = (top * (top @ v).sign()) @ found.recorded["z"][-1, 0]
        torch.testing.assert_close(found.recorded["top"][-1, 0], expected, rtol=1e-3, atol=1e-6)


def test_bad_budgets():
    for arguments, text in (
        ({"directions": 1}, "directions of at least 2"),
        ({"matvecs": 1}, "mat"),
    ):
        with pytest.raises(ValueError, match=text):
            top_mode(regression(), **arguments)
