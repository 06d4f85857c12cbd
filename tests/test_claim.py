import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lossgeom as lg
from lossgeom.claim import judge
from lossgeom.lab.statistics import mean_interval, rank_correlation


def claim(interval, expected=(0.9, math.inf), control=False):
    return lg.Claim("id", "s", "source", "m", 1.0, interval, (1.0,), expected, control)


def test_verdicts():
    assert claim((0.95, 1.0)).verdict == "shown"
    assert claim((0.85, 0.95)).verdict == "inconclusive"
    assert claim((0.1, 0.2)).verdict == "contradicted"
    assert claim((math.nan, math.nan)).verdict == "inconclusive"
    assert claim((0.1, 0.2), control=True).as_expected
    assert not claim((0.95, 1.0), control=True).as_expected
    assert claim((0.1, 0.2)).to_json()["verdict"] == "contradicted"


@given(st.floats(-5, 5), st.floats(0, 5), st.floats(-5, 5), st.floats(0, 5))
def test_an_interval_is_never_both_inside_and_outside(low, width, expected_low, expected_width):
    interval, expected = (low, low + width), (expected_low, expected_low + expected_width)
    verdict = judge(interval, expected)
    inside = expected[0] <= interval[0] and interval[1] <= expected[1]
    apart = interval[1] < expected[0] or interval[0] > expected[1]
    assert (verdict == "shown") == inside
    assert (verdict == "contradicted") == apart


def test_interval_covers_the_mean_as_often_as_it_says():
    """4 standard errors around 95 % of 2,000 samples; and a wrong mean is not covered."""
    import numpy as np

    samples = np.random.default_rng(0).normal(3.0, 2.0, (2000, 5))
    intervals = [mean_interval(list(map(float, sample)))[1] for sample in samples]
    covered = np.mean([low <= 3.0 <= high for low, high in intervals])
    assert abs(covered - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 2000)
    assert np.mean([low <= 9.0 <= high for low, high in intervals]) < 0.2


def test_statistics_without_enough_data():
    assert math.isnan(mean_interval([])[0])
    assert math.isnan(mean_interval([1.0])[1][0])
    assert math.isnan(mean_interval([1.0, math.inf])[1][0])
    assert math.isnan(rank_correlation([1.0], [2.0]))
    assert math.isnan(rank_correlation([1.0, 2.0], [3.0, 3.0]))


def test_estimate():
    assert lg.Estimate(math.nan).status == "nonfinite"
    assert lg.Estimate(1.0, converged=False).status == "not_converged"
    with pytest.raises(AttributeError):
        lg.Estimate(1.0).value = 2.0
