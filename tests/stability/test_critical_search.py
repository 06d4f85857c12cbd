"""The search for a critical step on lines that are made up, with noise of a known size."""

import math
import random

import pytest

from lossgeom.stability._critical_search import RTOL, Search

pytestmark = pytest.mark.quick


def searched(rise, noise=0.0, start=None, most=40):
    tried = []

    def rises(multiples):
        tried.extend(multiples)
        return [rise(s) for s in multiples]

    found = Search(rises, noise, RTOL).run(start, most)
    assert found.passes == len(tried)
    return found, tried


def line(critical, slope, cubic, deviation, generator):
    """A rise that is zero at the critical multiple, with a third derivative and noise."""

    def rise(s):
        x = s / critical
        exact = slope * critical * (x * x - x + cubic * (x**3 - x * x) * (cubic > 0 or x < 2))
        return exact + generator.gauss(0, deviation)

    return rise


def test_the_interval_holds_the_critical_step_whatever_the_noise():
    generator, converged, warm = random.Random(0), 0, []
    for _ in range(1000):
        critical, slope = 10 ** generator.uniform(-4, 4), 10 ** generator.uniform(-6, 2)
        deviation = 10 ** generator.uniform(-14, -3) * slope * critical
        cubic = generator.choice([0, 0.3, -0.3])
        start = generator.choice([None, critical * generator.uniform(0.5, 2)])
        rise = line(critical, slope, cubic, deviation, generator)
        found, _ = searched(rise, 4 * deviation, start)
        assert found.low <= critical <= found.high
        assert found.low <= found.value <= found.high
        if found.converged:
            converged += 1
            assert found.value == pytest.approx(critical, rel=RTOL)
        warm += [found.passes] if start else []
    assert converged > 990
    assert sum(warm) / len(warm) < 5


def test_without_an_allowance_noise_is_taken_for_a_rise():
    """So that the noise of the test above is seen to matter."""
    generator = random.Random(0)
    wrong = 0
    for _ in range(200):
        rise = line(1.0, 1.0, 0, 1e-3, generator)
        found, _ = searched(rise, 0.0, start=1e-4)
        wrong += not found.low <= 1.0 <= found.high
    assert wrong > 50


def test_a_fall_that_is_too_small_to_be_seen():
    """The loss may have fallen a little before it rises: the interval begins at zero."""
    found, _ = searched(lambda s: s * s - 1e-3 * s, noise=1e-5)
    assert (found.low, found.converged) == (0, False)
    assert 1e-3 <= found.high < 0.1
    assert found.value == pytest.approx(1e-3, rel=0.3)  # where the rises point


def test_a_wall_is_found_by_halving():
    found, tried = searched(lambda s: math.inf if s > 3.3 else -s)
    assert found.low <= 3.3 <= found.high
    assert found.converged
    assert len(tried) < 16


def test_a_start_that_is_the_critical_step_itself():
    """Where no difference is seen, those beside it are tried."""
    found, tried = searched(lambda s: s * s - 2 * s, noise=1e-9, start=2 / (1 + RTOL / 2))
    assert tried[1] == pytest.approx(2)
    assert found.value == pytest.approx(2)
    assert found.converged


def test_every_interval_ends():
    """Also of a rise that makes no sense."""
    generator = random.Random(1)
    for _ in range(200):
        searched(lambda s: generator.gauss(0, 1), noise=1e-6)
