"""Theorem 5.1: the Jacobian that targets far apart call for."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lossgeom as lg
from lossgeom.bounds import jacobian_from_separation
from lossgeom.lipschitz import Bracket
from tests.bounds.functions import certified, covering, network, problem
from tests.conftest import without_checks

DECLARED = {"epsilon": 0.05, "convex": True}


@pytest.mark.quick
@pytest.mark.parametrize(
    ("smoothing", "expected"), [(0.0, 0.4047), (0.25, 0.2869), (0.5, 0.1690), (0.75, 0.0512)]
)
def test_label_smoothing_brings_targets_together(smoothing, expected):
    x = torch.tensor([[0.0, 0.0], [3.0, 0.0]])
    y = (1 - smoothing) * torch.eye(2) + smoothing / 2
    bound = jacobian_from_separation(x, y, 0.0, fit=0.1, **DECLARED)
    assert bound.value == pytest.approx(expected, abs=5e-5)
    assert bound.value == pytest.approx((2**0.5 * (1 - smoothing) - 0.2) / 3)
    assert (bound.side, bound.certified, bound.trivial) == ("lower", False, 0.0)


@pytest.mark.quick
def test_brackets_give_a_certificate():
    x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [2.0]])
    fit, variation = Bracket.between(0.1, 0.2), Bracket(torch.zeros(2), torch.tensor([0.1, 0.4]))
    bound = jacobian_from_separation(x, y, variation, fit=fit, **DECLARED)
    assert bound.value == pytest.approx(2 - 0.4 - 0.4)
    assert bound.least == pytest.approx(2 - 0.2)
    assert bound.terms == {"steepest pair": pytest.approx(1.6), "variation": pytest.approx(-0.4)}
    assert bound.certified
    assert "at the examples is at least 1.2, with probability 0.95" in str(bound)
    nothing = jacobian_from_separation(x, y, 5.0, fit=fit, **DECLARED)
    assert nothing.vacuous
    assert "vacuous, it is at least 0 in any case" in str(nothing)


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 1000), d=st.integers(1, 2), off=st.sampled_from([0.0, 0.1]))
def test_jacobians_are_never_smaller(seed, d, off):
    model = network(d, 2, seed, scale=3.0)
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(20, d, generator=generator, dtype=torch.float64)
    noise = torch.randn(20, 2, generator=generator, dtype=torch.float64)
    targets = model(x).detach() + off * noise / noise.norm(dim=1, keepdim=True)
    with without_checks():
        _, variation = certified(model, x, covering(x))
        largest = lg.jacobian_norms(problem(model, x)).max
    bound = jacobian_from_separation(x, targets, variation, fit=off + 1e-12, **DECLARED)
    assert largest >= bound.value


@pytest.mark.quick
def test_a_larger_bound_is_violated():
    """Targets of a line, each moved by the fit, and the slope there less than that on the ball."""
    x, fit, slope, variation = torch.tensor([[0.0], [2.0]]), 0.5, 3.0, 1.0
    y = slope * x + torch.tensor([[-fit], [fit]])
    at_examples = slope - variation

    def value(variation, fit):
        return jacobian_from_separation(x, y, variation, fit=fit, **DECLARED).value

    assert value(variation, fit) == pytest.approx(at_examples, rel=1e-9)
    assert value(variation, fit) <= at_examples
    assert value(variation / 2, fit) > at_examples
    assert value(variation, fit / 2) > at_examples


@pytest.mark.quick
@given(y=st.tuples(*[st.floats(0.1, 3.0)] * 2), x=st.floats(1e-3, 1e3), left=st.floats(1e-15, 1e-6))
def test_a_difference_that_is_all_rounding_is_not_too_large(y, x, left):
    """Where targets are hardly farther apart than twice the fit, in exact arithmetic."""
    fit = abs(y[0] - y[1]) / 2 * (1 - left)
    inputs, targets = (torch.tensor([a], dtype=torch.float64).T for a in ((0.0, x), y))
    bound = jacobian_from_separation(inputs, targets, 0.0, fit=fit, **DECLARED)
    exact = (abs(Fraction(y[0]) - Fraction(y[1])) - 2 * Fraction(fit)) / Fraction(x)
    assert Fraction(bound.value) <= max(exact, 0)


@pytest.mark.quick
def test_errors():
    x, y = torch.zeros(2, 1), torch.tensor([[0.0], [1.0]])
    with pytest.raises(ValueError, match="needs a distribution with a convex support"):
        jacobian_from_separation(x, y, 0.0, fit=0.1, epsilon=0.05, convex=False)
    with pytest.raises(ValueError, match=r"got 0.1 for examples 0 and 1, whose targets are farth"):
        jacobian_from_separation(x, y, 0.0, fit=0.1, **DECLARED)
    with pytest.raises(ValueError, match="expected epsilon >= 0 and < 1, got -1"):
        jacobian_from_separation(x, y, 0.0, fit=1.0, epsilon=-1.0, convex=True)
    assert math.isclose(jacobian_from_separation(x, y, 0.0, fit=1.0, **DECLARED).value, 0.0)
