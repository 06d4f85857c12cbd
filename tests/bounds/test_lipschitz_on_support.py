"""Theorem 4.3: the Lipschitz constant on the support, from what is known near a sample."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lossgeom.bounds import lipschitz_on_support
from lossgeom.lipschitz import Bracket
from tests.bounds.functions import certified, covering, distances, grid, network
from tests.conftest import without_checks

DECLARED = {"epsilon": 0.05, "convex": True}


@pytest.mark.quick
def test_the_example_with_the_largest_sum_decides():
    norms = Bracket(torch.tensor([1.0, 2.0, 0.0]), torch.tensor([1.5, 2.0, 0.5]))
    variation = Bracket(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([2.0, 1.0, 1.0]))
    bound = lipschitz_on_support(norms, variation, **DECLARED)
    assert bound.value == pytest.approx(3.5)
    assert bound.least == pytest.approx(2.5)
    assert bound.terms == {"Jacobian": 1.5, "variation": 2.0}
    assert (bound.certified, bound.confidence, bound.vacuous) == (True, 0.95, False)
    assert lipschitz_on_support(1.0, math.inf, **DECLARED).vacuous


@pytest.mark.quick
def test_a_measured_number_makes_an_estimate():
    exact = Bracket.exactly(1.0)
    assert lipschitz_on_support(exact, exact, **DECLARED).certified
    estimate = lipschitz_on_support(exact, 1.0, **DECLARED)
    assert not estimate.certified
    assert "an estimate, because not every number in it is certified" in str(estimate)
    assert lipschitz_on_support(1.0, torch.ones(3), **DECLARED).least is None


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 1000), d=st.integers(1, 2), scale=st.sampled_from([1.0, 3.0]))
def test_no_two_points_of_the_support_are_steeper(seed, d, scale):
    model = network(d, 2, seed, nn.Tanh if seed % 2 else nn.ReLU, scale)
    x = torch.rand(30, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    with without_checks(), torch.no_grad():
        bound = lipschitz_on_support(*certified(model, x, covering(x)), **DECLARED)
        points = grid(d)[0][::9]
        far, apart = distances(model(points)), distances(points)
    assert (far <= bound.value * apart).all()


@pytest.mark.quick
def test_half_of_it_is_violated():
    """By the slope 1 at the only example and 3 elsewhere in its ball, which varies by 2."""
    x = torch.tensor([-0.5, 0.0, 1.0], dtype=torch.float64)
    values = torch.where(x > 0, 3 * x, x)
    slope = ((values[2] - values[1]) / (x[2] - x[1])).item()
    bound = lipschitz_on_support(Bracket.exactly(1.0), Bracket.exactly(2.0), **DECLARED)
    assert slope <= bound.value < slope * (1 + 1e-9)
    for part in (1.0, 0.0):
        less = lipschitz_on_support(part, 1 - part, **DECLARED)
        assert less.value < slope


def test_a_support_that_is_not_convex():
    """sigmoid(50 (x - 5)) on [0, 1] and [9, 10]: flat on both, and 1/8 between."""
    x = torch.cat([torch.linspace(0, 1, 50), torch.linspace(9, 10, 50)]).double()[:, None]
    model = nn.Sequential(nn.Linear(1, 1), nn.Sigmoid()).double()
    with torch.no_grad():
        model[0].weight.fill_(50.0)
        model[0].bias.fill_(-250.0)
        between = (model(x)[50] - model(x)[49]) / (x[50] - x[49])
        with without_checks():
            norms, variation = certified(model, x, 0.03)
    pretended = lipschitz_on_support(norms, variation, **DECLARED)
    assert pretended.value < 1e-9 < between < 1 / 7
    with pytest.raises(ValueError, match="needs a distribution with a convex support"):
        lipschitz_on_support(norms, variation, epsilon=0.05, convex=False)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("numbers", "epsilon", "message"),
    [
        ((1.0, 1.0), 1.0, "expected epsilon >= 0 and < 1, got 1.0"),
        ((-1.0, 1.0), 0.1, "expected Jacobian norm >= 0, and no lower side above"),
        ((1.0, Bracket.between(2.0, 1.0)), 0.1, "expected local variation >= 0, and no lower"),
        ((torch.ones(3), torch.ones(2)), 0.1, "expected numbers of the same examples, got 2 and 3"),
        ((torch.ones(3, 2), 1.0), 0.1, r"one for each example, got the shape \(3, 2\)"),
        ((1.0, torch.ones(0)), 0.1, r"one for each example, got the shape \(0,\)"),
    ],
)
def test_errors(numbers, epsilon, message):
    with pytest.raises(ValueError, match=message):
        lipschitz_on_support(*numbers, epsilon=epsilon, convex=True)
