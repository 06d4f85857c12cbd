"""Bounds by the cells of examples: where they are attained, and never violated."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lossgeom.bounds import cell_generalisation, cell_robustness, interval_cells, unevenness
from lossgeom.lipschitz import Bracket

pytestmark = pytest.mark.quick
EVEN = torch.full((10,), 0.1, dtype=torch.float64)


def test_a_wave():
    """f = .3 / (10 pi) sin(10 pi (x - .05)), which is 0 at x = (i + .5) / 10, as is the target."""
    points = (torch.arange(10.0, dtype=torch.float64)[:, None] + 0.5) / 10
    masses, radius = interval_cells(points)
    torch.testing.assert_close(masses, EVEN)
    assert radius == pytest.approx(0.05)
    bound = cell_generalisation(masses, radius, 0.3, 3 * math.pi, 0.0)
    assert bound.value == pytest.approx(0.026781, abs=5e-7)
    x = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    error = (0.3 / (10 * math.pi) * (10 * math.pi * (x - 0.05)).sin()).abs()
    assert float(torch.trapezoid(error, x)) == pytest.approx(0.006079, abs=5e-7)
    assert not bound.certified
    assert bound.terms["fit"] == bound.terms["target"] == 0


@pytest.mark.parametrize("order", [None, 1, 2])
def test_attained_by_parabolas(order):
    """All mass at a distance r, f = l + g t + beta t^2 / 2, f* = -L t: no constant is too large."""
    r, g, beta, steep, fit, rho = 0.3, 2.0, 5.0, 0.7, 0.01, 0.2
    bound = cell_generalisation(EVEN, r, g, beta, steep, fit=fit, order=order)
    assert bound.value == pytest.approx(fit + g * r + beta * r**2 / 2 + steep * r, rel=1e-10)
    attacked = cell_robustness(EVEN, r, g, beta, rho, order=order)
    change = g * rho + beta / 2 * ((r + rho) ** 2 - r**2)
    assert attacked.value == pytest.approx(change, rel=1e-10)
    assert attacked.value < 2 * (r + rho) * g + beta * (r + rho) ** 2


@pytest.mark.parametrize("order", [1, 2, 3])
def test_hoelder_is_attained_and_never_violated(order):
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        g = torch.rand(7, generator=generator, dtype=torch.float64) + 0.01
        for p in (torch.rand(7, generator=generator, dtype=torch.float64), g ** (2 * order - 1)):
            p = p / p.sum()
            exact = cell_generalisation(p, 1.0, g, 0.0, 0.0).value
            by_moment = cell_generalisation(p, 1.0, g, 0.0, 0.0, order=order).value
            anywhere = cell_generalisation(None, 1.0, g, 0.0, 0.0, order=order).value
            assert exact <= by_moment * (1 + 1e-9) <= anywhere * (1 + 2e-9)
        assert by_moment == pytest.approx(exact)  # p^q and g^2k in proportion
    one = torch.eye(7, dtype=torch.float64)[0]
    assert unevenness(one, 7, order) == pytest.approx(unevenness(None, 7, order))
    moment = float(g.pow(2 * order).mean() ** (0.5 / order))
    assert cell_generalisation(p, 1.0, moment, 0.0, 0.0, order=order).value == pytest.approx(
        by_moment
    )


def test_without_masses_the_largest_counts():
    g = torch.tensor([1.0, 3.0, 2.0])
    bound = cell_generalisation(None, 0.1, g, 1.0, 2.0, fit=torch.tensor([0.5, 0.0, 0.0]))
    assert bound.value == pytest.approx(0.5 + 0.1 * 1 + 0.005 + 0.2)
    assert cell_robustness(None, 0.1, g, 0.0, 0.5).value == pytest.approx(1.5)


def test_counted_masses_cost_a_share_of_the_range():
    masses, g = torch.tensor([0.5, 0.5]), torch.tensor([1.0, 3.0])
    bound = cell_generalisation(masses, 0.1, g, 0.0, 5.0, deviation=0.01, epsilon=0.05)
    assert bound.value == pytest.approx(0.1 * 2 + 0.5 + 0.01 * 0.1 * 2)
    assert bound.confidence == 0.95
    assert bound.terms["masses"] == pytest.approx(0.002)


def test_counted_masses_cost_all_that_a_moment_allows_for():
    """One example of four with a Jacobian of 4, and the rest 0, have a moment of 2."""
    masses, g = torch.full((4,), 0.25), torch.tensor([4.0, 0.0, 0.0, 0.0])
    for order, moment in ((1, 2.0), (2, 4 / 4**0.25)):
        alone, every = (
            cell_generalisation(masses, 0.5, each, 0.0, 0.0, order=order, deviation=0.1)
            for each in (moment, g)
        )
        assert alone.terms["masses"] == pytest.approx(0.1 * 0.5 * 4)
        assert alone.value == pytest.approx(every.value)
    anywhere = cell_generalisation(None, 0.5, g, 0.0, 0.0, order=1, deviation=0.1)
    assert "masses" not in anywhere.terms  # it holds for any


def test_cells_of_points_outside_of_the_interval():
    masses, radius = interval_cells(torch.tensor([[0.5], [3.0], [-0.25]]))
    assert masses.tolist() == [0.875, 0.0, 0.125]
    assert radius >= 0.5


def test_certified_by_brackets():
    sides = Bracket.between(1.0, 2.0)
    known = Bracket(EVEN, EVEN)
    bound = cell_generalisation(known, Bracket.exactly(0.1), sides, sides, sides)
    assert bound.certified
    assert bound.value == pytest.approx(0.1 * (2 + 2) + 0.01)
    assert bound.least == pytest.approx(0.1 * (1 + 1) + 0.005)
    assert not cell_robustness(EVEN, Bracket.exactly(0.1), sides, sides, 0.1).certified


def test_jumps_are_infinite():
    beta = torch.tensor([math.inf, 1.0])
    assert cell_robustness(torch.tensor([0.0, 1.0]), 0.1, 1.0, beta, 0.1).value < 1
    bound = cell_robustness(torch.tensor([0.5, 0.5]), 0.1, 1.0, beta, 0.1, deviation=0.1)
    assert math.isinf(bound.value)
    both = cell_robustness(torch.tensor([0.5, 0.5]), 0.1, 1.0, math.inf, 0.1, deviation=0.1)
    assert math.isinf(both.value)
    assert both.vacuous


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**16), st.integers(1, 12), st.floats(0.01, 0.3))
def test_never_violated_by_waves(seed, n, rho):
    """Of random phases, with the derivatives as they are and the error on a fine grid."""
    generator = torch.Generator().manual_seed(seed)
    a, b, c = torch.rand(3, generator=generator, dtype=torch.float64) * 6

    def f(x):
        return (a * x + b).sin() + x * c

    points = torch.rand(n, 1, generator=generator, dtype=torch.float64)
    masses, radius = interval_cells(points)
    x = torch.linspace(0, 1, 2001, dtype=torch.float64)
    nearest = (x[:, None] - points[:, 0]).abs().argmin(1)
    shares = nearest.bincount(minlength=n).double() / len(x)
    torch.testing.assert_close(masses, shares, atol=3e-3, rtol=0)
    slopes, target = (a * (a * points[:, 0] + b).cos() + c).abs(), (b * x).cos()
    fit = (f(points[:, 0]) - (b * points[:, 0]).cos()).abs()
    bound = cell_generalisation(masses, radius, slopes, a**2, b, fit=fit)
    assert float((f(x) - target).abs().mean()) <= bound.value * (1 + 5e-3)
    moves = torch.linspace(-float(rho), float(rho), 41, dtype=torch.float64)[:, None]
    change = (f(x + moves) - f(x)).abs().amax(0)
    assert float(change.mean()) <= cell_robustness(masses, radius, slopes, a**2, rho).value * 1.005


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: cell_generalisation(EVEN / 2, 0.1, 1.0, 1.0, 1.0),
            "that sum to 1, got 0.5",
        ),
        (lambda: cell_generalisation(EVEN, 0.1, torch.ones(3), 1.0, 1.0), "the same examples"),
        (lambda: cell_generalisation(EVEN, 0.1, -1.0, 1.0, 1.0), "expected Jacobian norm >= 0"),
        (lambda: cell_robustness(EVEN, 0.1, 1.0, 1.0, 0.0), "expected attack > 0"),
        (
            lambda: cell_generalisation(None, 0.1, 1.0, 1.0, 1.0, order=1),
            "expected one of the numbers for each example",
        ),
    ],
)
def test_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
