"""What fresh points show of the covering by a sample."""

import math
from itertools import product

import pytest
import torch
from scipy.spatial import cKDTree

from lossgeom.bounds import (
    Cube,
    Gaussian,
    MeasuredCovering,
    PushForward,
    Sphere,
    covering_radius,
    generalisation_bounds,
)

pytestmark = pytest.mark.quick


def grid(side):
    axis = torch.linspace(0, 1, side, dtype=torch.float64)
    return torch.cartesian_prod(axis, axis)


def test_distances_and_the_mass_left_out_in_closed_form():
    points, fresh = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.1], [0.75], [0.5]])
    covered = covering_radius(points, fresh, confidence=0.875)
    assert covered.radius == pytest.approx(0.5)
    assert covered.left_out == pytest.approx(0.5)  # 1 - 0.125^(1/3)
    assert (covered.whole_radius, covered.confidence, covered.fresh) == (math.inf, 0.875, 3)


def test_the_gap_of_a_square_in_closed_form():
    """A ball round a corner of the unit square with a mass of q has the radius (4 q / pi)^(1/2)."""
    covered = covering_radius(Cube(2).sample(10), Cube(2).sample(900, 1), distribution=Cube(2))
    gap = covered.whole_radius - covered.radius
    assert gap == pytest.approx((4 * (1 - 0.05 ** (1 / 900)) / math.pi) ** 0.5)


@pytest.mark.parametrize("N", [50, 400])
def test_the_whole_support_is_covered(N):
    """As distances from a grid of the square show, which miss no more than half a diagonal."""
    support = grid(200)
    for seed in range(20):
        points = Cube(2).sample(N, seed)
        exact = cKDTree(points.numpy()).query(support.numpy())[0].max()
        covered = covering_radius(points, Cube(2).sample(3000, 99 + seed), distribution=Cube(2))
        assert exact <= covered.whole_radius < Cube(2).radius(N, 0.05)


def test_left_out_fails_as_often_as_it_says_and_a_smaller_one_more_often():
    """With two points at the ends of an interval, the mass beyond r is 1 - 2 r."""
    ends, c = torch.tensor([[0.0], [1.0]], dtype=torch.float64), 0.8
    found = [
        covering_radius(ends, Cube(1).sample(20, seed), confidence=c) for seed in range(1, 400)
    ]
    beyond = torch.tensor([1 - 2 * one.radius for one in found])
    q = found[0].left_out
    error = 4 * (c * (1 - c) / len(found)) ** 0.5
    assert abs((beyond <= q).double().mean() - c) < error  # exact for this one
    assert (beyond <= q / 2).double().mean() < c - error


def test_a_forgotten_gap_is_caught():
    """Fresh points alone rarely reach the corner that is furthest away."""
    corners = torch.tensor(list(product([0.0, 1.0], repeat=2)), dtype=torch.float64)
    points, found = torch.full((1, 2), 0.5, dtype=torch.float64), []
    for seed in range(1, 20):
        covered = covering_radius(points, Cube(2).sample(100, seed), distribution=Cube(2))
        furthest = torch.cdist(points, corners).max().item()
        assert covered.whole_radius >= furthest
        found.append(covered.radius < furthest)
    assert all(found)


def test_too_few_fresh_points_say_nothing_of_the_whole():
    sphere = Sphere(3)
    covered = covering_radius(sphere.sample(50), sphere.sample(2, 1), distribution=sphere)
    assert covered.whole_radius == math.inf


@pytest.mark.parametrize(
    "of",
    [
        Cube(1),
        Cube(2),
        Sphere(1),
        Gaussian(1, cut=2.0),
        PushForward(Cube(1), lambda u: torch.cat([u, u**2], dim=1), lipschitz=5**0.5),
    ],
)
def test_a_measured_radius_stands_for_that_of_the_distribution(of):
    support = of.sample(20_000, seed=99)
    for seed in range(4):
        measured = MeasuredCovering(of, of.sample(200, seed), fresh=20_000)
        seen = cKDTree(measured.points.numpy()).query(support.numpy())[0].max()
        assert seen <= measured.radius(200, 0.05) < of.radius(200, 0.05) / 1.5
    assert (measured.dimension, measured.convex) == (of.dimension, of.convex)
    assert (measured.left_out, measured.certified) == (of.left_out, of.certified)
    assert torch.equal(measured.sample(3), of.sample(3))


def test_errors_of_measured_radii():
    square = Cube(2)
    points = square.sample(50)
    with pytest.raises(ValueError, match="2 fresh points are too few to see all of the support"):
        MeasuredCovering(Sphere(1), square.sample(50), fresh=2).radius(50, 0.01)
    with pytest.raises(ValueError, match="expected the 50 points of the sample, got N = 49"):
        MeasuredCovering(square, points).radius(49, 0.05)
    with pytest.raises(ValueError, match=r"expected epsilon > 0 and < 1, got 0\.0"):
        MeasuredCovering(square, points).radius(50, 0.0)
    with pytest.raises(ValueError, match="expected fresh of at least 1, got 0"):
        MeasuredCovering(square, points, fresh=0)
    with pytest.raises(ValueError, match="but 50 of 100 are in it: draw them with another seed"):
        covering_radius(points, square.sample(100), distribution=square)


def test_a_measured_radius_is_of_its_own_points():
    square = Cube(2)
    points, others = square.sample(50), square.sample(50, seed=1)
    measured = MeasuredCovering(square, points, fresh=5000)
    assert measured.radius_round(points, 0.05) == measured.radius(50, 0.05)
    assert square.radius_round(others, 0.05) == square.radius(50, 0.05)
    for wrong in (others, points.flip(0), points[:49]):
        with pytest.raises(ValueError, match="expected the 50 points that the covering was meas"):
            measured.radius_round(wrong, 0.05)
    model = torch.nn.Linear(2, 1)
    with pytest.raises(ValueError, match="in their order, got others: measure that of these"):
        generalisation_bounds(model, model, others, measured, searched=0)


def test_errors():
    with pytest.raises(ValueError, match="expected at least one fresh point, got none"):
        covering_radius(torch.zeros(1, 1), torch.zeros(0, 1))
    with pytest.raises(ValueError, match=r"expected confidence > 0 and < 1, got 1\.0"):
        covering_radius(torch.zeros(1, 1), torch.zeros(1, 1), confidence=1.0)
    with pytest.raises(ValueError, match="finite"):
        covering_radius(torch.zeros(1, 1), torch.full((1, 1), math.nan))
