import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lossgeom as lg
from lossgeom.recording.claim import holm, judge


def claim(interval, expected=(0.9, math.inf), control=False):
    return lg.Claim("id", "s", "source", "m", 1.0, interval, (1.0,), expected, control)


@pytest.mark.quick
def test_verdicts():
    assert claim((0.95, 1.0)).verdict == "shown"
    assert claim((0.85, 0.95)).verdict == "inconclusive"
    assert claim((0.1, 0.2)).verdict == "contradicted"
    assert claim((math.nan, math.nan)).verdict == "inconclusive"
    assert claim((0.1, 0.2), control=True).as_expected
    assert not claim((0.95, 1.0), control=True).as_expected
    assert claim((0.1, 0.2)).to_json()["verdict"] == "contradicted"


@pytest.mark.quick
@given(st.floats(-5, 5), st.floats(0, 5), st.floats(-5, 5), st.floats(0, 5))
def test_an_interval_is_never_both_inside_and_outside(low, width, expected_low, expected_width):
    interval, expected = (low, low + width), (expected_low, expected_low + expected_width)
    verdict = judge(interval, expected)
    inside = expected[0] <= interval[0] and interval[1] <= expected[1]
    apart = interval[1] < expected[0] or interval[0] > expected[1]
    assert (verdict == "shown") == inside
    assert (verdict == "contradicted") == apart


def test_one_counterexample_contradicts_a_statement_about_all():
    seen = {"interval": (0.1, 1.1), "expected": (-math.inf, 1.0)}
    assert judge(**seen) == "inconclusive"
    assert judge(**seen, every=True) == "contradicted"
    assert judge((0.1, 0.9), (-math.inf, 1.0), every=True) == "shown"
    assert judge((math.nan, math.nan), (-math.inf, 1.0), every=True) == "inconclusive"


def test_estimate():
    assert lg.Estimate(math.nan).status == "nonfinite"
    assert lg.Estimate(1.0, converged=False).status == "not_converged"
    with pytest.raises(AttributeError):
        lg.Estimate(1.0).value = 2.0


@pytest.mark.quick
def test_chances_corrected_for_their_number():
    """As by ``p.adjust(method = "holm")`` of R."""
    assert holm([0.03, 0.01, 0.05, 0.02, 0.04]) == pytest.approx([0.09, 0.05, 0.09, 0.08, 0.09])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.quick
def test_one_wrong_verdict_of_many_is_as_rare_as_one_alone():
    """And is not without the correction."""
    chances = np.random.default_rng(0).random((2000, 20))
    wrong = np.mean([min(holm(row)) <= 0.05 for row in chances.tolist()])
    assert wrong < 0.05 + 4 * math.sqrt(0.05 * 0.95 / 2000)
    assert np.mean(chances.min(axis=1) <= 0.05) > 0.6
