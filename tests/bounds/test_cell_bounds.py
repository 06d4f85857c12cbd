"""Bounds by cells with all numbers certified, beside errors and attacks that are measured."""

import math

import pytest
import torch
from torch import nn

import lossgeom as lg
from lossgeom.bounds import Cube, PushForward, cell_bounds
from lossgeom.bounds.cell_bounds import _cells
from lossgeom.lab.models import mlp
from lossgeom.linalg import random_numbers
from tests.bounds.test_input_gradients import problem_of

ATTACK = 0.05


def modules(seed, dimension=1, outputs=2):
    return [mlp(dimension, outputs, [12], "tanh", s).double() for s in (seed, seed + 100)]


@pytest.mark.parametrize(("dimension", "n"), [(1, 20), (2, 40)])
def test_above_error_and_attack(dimension, n):
    distribution = Cube(dimension)
    f, goal = modules(n, dimension)
    for module in (f, goal):
        module[0].weight.data *= 4
    x, new = distribution.sample(n), distribution.sample(40, seed=1)
    found = cell_bounds(
        f, goal, x, distribution, attack=ATTACK, orders=(1, 2), searched=1, fresh=5000
    )
    with torch.no_grad():
        error = float((f(new) - goal(new)).norm(dim=1).mean())
    attacked = lg.logit_change(problem_of(f, new), ATTACK, steps=5, certify=False).lower
    exact, robust = found["generalisation"], found["robustness"]
    assert error < exact.value
    assert float(attacked.mean()) < robust.value
    assert exact.certified
    assert exact.least < exact.value
    for k in (1, 2):
        even, anywhere = (
            found[f"generalisation, k = {k}{any_}"].value for any_ in ("", ", any cells")
        )
        assert exact.value <= even * (1 + 1e-9)
        assert even < anywhere


def test_numbers_of_a_line():
    """f = 3 x and f* = x, without curvature: r (3 + 1) and the misfit, 2 x_i, in the mean."""
    f, goal = nn.Linear(1, 1), nn.Linear(1, 1)
    for module, slope in ((f, 3.0), (goal, 1.0)):
        nn.init.constant_(module.weight, slope)
        nn.init.zeros_(module.bias)
    x = torch.tensor([[0.25], [0.75]], dtype=torch.float64)
    found = cell_bounds(f, goal, x, Cube(1), attack=0.1, searched=0)
    assert found["generalisation"].value == pytest.approx(0.25 * (3 + 1) + 1.0)
    assert found["robustness"].value == pytest.approx(0.3)
    assert found["generalisation"].trivial == pytest.approx(0.5)
    assert found["generalisation"].confidence == 1
    told = str(found["robustness"])
    assert "checked: new inputs are within the radius" in told
    assert "you declare: new inputs are drawn from Cube" in told


def test_cells_are_counted_with_fresh_points():
    """Beside the exact cells of an interval, and with Hoeffding's deviation of their means."""
    points, fresh, epsilon = Cube(1).sample(20), 4000, 0.05
    exact, radius, none = _cells(points, Cube(1), fresh, epsilon, 0)
    same = PushForward(
        Cube(1), lambda u: u, lg.Bracket.exactly(1.0)
    )  # is not known for an interval
    counted, wider, deviation = _cells(points, same, fresh, epsilon, 0)
    assert none == 0
    assert radius < wider < 1.2 * radius
    assert deviation == pytest.approx(math.sqrt(math.log(40) / 8000))
    assert float((counted.upper - exact.upper).abs().max()) < deviation
    others = same.draw(fresh, random_numbers(0))
    assert not torch.equal(others[:20], points) or not torch.equal(
        counted.upper, _cells(points, same, fresh, epsilon, 1)[0].upper
    )


def test_a_radius_that_rests_on_a_measured_number_is_an_estimate():
    f, goal = modules(0)
    doubled = PushForward(Cube(1), lambda u: 2 * u, lipschitz=2.0)
    found = cell_bounds(f, goal, doubled.sample(30), doubled, fresh=5000, searched=0)
    assert not found["generalisation"].certified
    assert "you declare: new inputs are within the radius" in str(found["generalisation"])
    assert "checked: what is said of the Jacobian" in str(found["generalisation"])


def test_points_that_find_the_radius_are_not_those_that_are_counted():
    """The deviation of a mean is that of independent points, for what does not depend on them."""
    used = []

    class Seen(PushForward):
        def draw(self, N, generator):
            used.append(super().draw(N, generator))
            return used[-1]

    same = Seen(Cube(1), lambda u: u, lg.Bracket.exactly(1.0))
    points = Cube(1).sample(5)
    counted = _cells(points, same, 300, 0.05, 0)[0]
    radius_of, counted_of = used
    assert not torch.equal(radius_of, counted_of)
    nearest = torch.cdist(counted_of, points).argmin(1)
    assert torch.equal(counted.upper, nearest.bincount(minlength=5).double() / 300)


def test_a_jump_in_slope_is_infinite_where_it_may_be():
    f = nn.Sequential(nn.Linear(1, 4), nn.ReLU(), nn.Linear(4, 1)).double()
    nn.init.constant_(f[0].weight, 1.0)
    nn.init.constant_(f[0].bias, -0.5)
    found = cell_bounds(f, modules(0, 1, 1)[0], Cube(1).sample(20), Cube(1), searched=0)
    assert math.isinf(found["generalisation"].value)
    assert found["generalisation"].vacuous
