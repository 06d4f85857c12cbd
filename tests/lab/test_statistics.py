"""Intervals over seeds, and the claims that are made from them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lossgeom.lab.statistics import (
    FEWEST_SEEDS,
    claim_of_all,
    claim_of_runs,
    claim_of_seeds,
    claim_over_seeds,
    control,
    counted,
    median_interval,
    rank_correlation,
    share_interval,
)


@pytest.mark.parametrize("name", ["normal", "exponential"])
@pytest.mark.parametrize("n", [6, 20])
def test_interval_covers_the_median_as_often_as_it_says(name, n):
    """At least, up to 4 standard errors, for any distribution; and another value is not covered."""
    rng = np.random.default_rng(n)
    draw = {"normal": rng.normal, "exponential": rng.exponential}[name]
    median = {"normal": 0.0, "exponential": math.log(2)}[name]
    intervals = [median_interval(sample.tolist())[1] for sample in draw(size=(500, n))]
    covered = np.mean([low <= median <= high for low, high in intervals])
    assert covered > 0.95 - 4 * math.sqrt(0.95 * 0.05 / 500)
    assert np.mean([low <= median + 5 <= high for low, high in intervals]) < 0.5


def test_six_seeds_are_the_fewest_for_an_interval_of_the_median():
    fewest = [float(i) for i in range(FEWEST_SEEDS)]
    assert median_interval(fewest) == (2.5, (0.0, 5.0))
    assert math.isnan(median_interval(fewest[1:])[1][0])
    assert median_interval([float(i) for i in range(9)])[1] == (
        1.0,
        7.0,
    )


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30))
def test_intervals_stay_in_the_range_of_what_is_measured(counts):
    """Where Student's reaches below zero for counts and beyond 1 for shares."""
    _, (low, high) = median_interval([float(count) for count in counts])
    assert math.isnan(low) or min(counts) <= low < high <= max(counts)
    _, (low, high) = share_interval(sum(count > 4 for count in counts), len(counts))
    assert 0 <= low < high <= 1


@pytest.mark.parametrize("n", [1, 6, 20])
@pytest.mark.parametrize("p", [0.01, 0.5, 0.97])
def test_interval_covers_the_share_as_often_as_it_says(n, p):
    """Summed over all outcomes."""
    chances = [math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]
    intervals = [share_interval(k, n)[1] for k in range(n + 1)]
    covered = [c for c, (low, high) in zip(chances, intervals, strict=True) if low <= p <= high]
    assert sum(covered) >= 0.95


def test_equal_seeds_do_not_give_an_interval_without_width():
    assert share_interval(6, 6)[1] == pytest.approx((0.025 ** (1 / 6), 1))
    assert share_interval(0, 6)[1] == pytest.approx((0, 1 - 0.025 ** (1 / 6)))
    assert math.isnan(median_interval([9.0] * 6)[1][0])
    assert median_interval([math.inf] * 6)[1] == (math.inf, math.inf)  # all diverged


PARTS = {"statement": "s", "source": "p", "measured": "m"}


def test_a_claim_about_the_median():
    values = [1.0, 1.1, 1.2, 1.3, 1.4, 1.5]
    found = claim_over_seeds("a", values=values, expected=(0.9, 2.0), **PARTS)
    assert (found.verdict, found.statistic, found.interval) == ("shown", 1.25, (1.0, 1.5))
    gone = claim_over_seeds("a", values=[*values[1:], math.inf], expected=(0.9, 2.0), **PARTS)
    assert (gone.verdict, gone.interval) == ("inconclusive", (1.1, math.inf))
    few = claim_over_seeds("a", values=[*values[1:], math.nan], expected=(0.9, 2.0), **PARTS)
    assert few.verdict == "inconclusive"
    assert few.note == "5 of 6 seeds give a value; an interval needs 6."
    same = claim_over_seeds("a", values=[1.0] * 6, expected=(0.9, 2.0), note="More.", **PARTS)
    assert same.verdict == "inconclusive"
    assert same.note.startswith("All seeds give the same value")
    assert same.note.endswith("More.")


def test_a_claim_about_the_share_of_seeds():
    """Six of six are most of all seeds, five of six or of five need not be."""
    counts = {"inside": (8.0, 10.0), **PARTS}
    assert claim_of_seeds("a", values=[9.0] * 6, **counts).verdict == "shown"
    assert claim_of_seeds("a", values=[9.0] * 5, **counts).verdict == "inconclusive"
    one_off = claim_of_seeds("a", values=[0.0, *[9.0] * 5], **counts)
    assert one_off.verdict == "inconclusive"
    assert one_off.per_seed == (0.0, *[9.0] * 5)
    assert one_off.statistic == pytest.approx(5 / 6)
    assert claim_of_seeds("a", values=[0.0] * 6, **counts).verdict == "contradicted"
    missing = claim_of_seeds("a", values=[9.0] * 6 + [math.nan], **counts)
    assert (missing.verdict, missing.note) == ("shown", "6 of 7 seeds give a value.")
    assert claim_of_seeds("a", values=[], **counts).verdict == "inconclusive"


def test_a_claim_about_the_share_of_runs():
    found = claim_of_runs("a", values=[1.0, 0.9, 1.0], runs=40, expected=(0.9, math.inf), **PARTS)
    assert found.statistic == pytest.approx(116 / 120)
    assert found.interval == share_interval(116, 120)[1]
    assert (found.verdict, found.interval[1] < 1) == ("shown", True)
    every = claim_of_runs("a", values=[1.0] * 5, runs=40, expected=(0.9, math.inf), **PARTS)
    assert every.interval == pytest.approx((0.025 ** (1 / 200), 1))


def test_a_claim_about_all():
    """One of many seeds contradicts it, where their mean would be inside."""
    values, limit = [-1.0] * 9 + [0.01], {"expected": (-math.inf, 0.0), **PARTS}
    found = claim_of_all("a", values=values, **limit)
    assert (found.verdict, found.statistic, found.interval) == ("contradicted", 0.01, (-1.0, 0.01))
    assert found.note == "1 of 10 seeds have a counterexample."
    assert found.to_json()["every"]
    agree = claim_of_all("a", values=values[:6], cases=16, case="start", **limit)
    assert agree.verdict == "shown"
    alone = claim_of_all("a", values=values[:1], **limit)
    assert alone.note.startswith("No counterexample in 1 seed: ")
    assert agree.note == (
        "No counterexample in 96 starts: with 95% confidence, it is so in at least 96.9% of all."
    )
    assert claim_of_all("a", values=values[:4], **limit).verdict == "inconclusive"
    assert claim_of_all("a", values=[1.0], **limit).verdict == "contradicted"
    gone = claim_of_all("a", values=[-1.0, math.inf, math.nan], **limit)
    assert (gone.verdict, gone.statistic) == ("contradicted", math.inf)
    assert gone.note.startswith("2 of 3 seeds give a value. 1 of 2 seeds")
    assert claim_of_all("a", values=[], **limit).verdict == "inconclusive"


def test_statistics_without_enough_data():
    assert math.isnan(median_interval([])[0])
    assert math.isnan(median_interval([1.0, math.nan])[0])
    assert math.isnan(share_interval(0, 0)[0])
    assert math.isnan(rank_correlation([1.0], [2.0]))
    assert math.isnan(rank_correlation([1.0, 2.0], [3.0, 3.0]))


def test_the_chance_of_a_verdict_if_it_is_wrong():
    """That of so many values on one side of the median, or of so many hits."""
    for n, outside in ((6, 0), (12, 1)):
        values = [-1.0 - i for i in range(outside)] + [1.0 + i for i in range(n - outside)]
        chance = stats.binom.cdf(outside, n, 0.5)
        shown = claim_over_seeds("a", values=values, expected=(0.0, math.inf), **PARTS)
        assert (shown.verdict, shown.chance) == ("shown", pytest.approx(chance, rel=1e-4))
        failed = claim_over_seeds("a", values=values, expected=(-math.inf, 0.0), **PARTS)
        assert (failed.verdict, failed.chance) == ("contradicted", pytest.approx(chance, rel=1e-4))
    two_ends = claim_over_seeds("a", values=values, expected=(-0.5, 0.0), **PARTS)
    assert two_ends.chance == pytest.approx(2 * chance, rel=1e-4)
    share = claim_of_runs("a", values=[0.99], runs=200, expected=(0.9, math.inf), **PARTS)
    assert share.chance == pytest.approx(stats.binom.sf(197, 200, 0.9), rel=1e-4)
    none = claim_over_seeds("a", values=values, expected=(5.0, math.inf), **PARTS)
    assert (none.verdict, none.chance) == ("inconclusive", 1.0)
    limit = {"expected": (-math.inf, 0.0), **PARTS}
    assert claim_of_all("a", values=[-1.0] * 6, **limit).chance == 0.5**6
    assert claim_of_all("a", values=[-1.0] * 4, **limit).chance == 1
    assert claim_of_all("a", values=[-1.0, 1.0], **limit).chance == 0  # a counterexample is one


def test_a_negative_control_is_made_to_fail():
    parts = {"statement": "it falls.", "measured": "m", "inside": (8.0, 10.0)}
    failed = control(claim_of_seeds, "falls", values=[0.0] * 6, **parts)
    assert (failed.id, failed.source, failed.control) == ("control_falls", "made to fail", True)
    assert failed.statement == "Negative control: it falls."
    passed = control(claim_of_seeds, "falls", values=[9.0] * 6, **parts)
    assert (failed.as_expected, passed.as_expected) == (True, False)
    shown = claim_of_seeds("a", values=[9.0] * 6, inside=(8.0, 10.0), **PARTS)
    assert counted([shown, failed, passed]) == (
        "1 of 1 statements are shown, and 1 of 2 negative controls fail, as they should."
    )


@pytest.mark.parametrize(("seeds", "are"), [(1, "is 1"), (5, "are 5")])
def test_few_seeds_are_no_failure_of_a_study(seeds, are):
    values = [9.0] * seeds
    statement = claim_of_seeds("a", values=values, inside=(8.0, 10.0), **PARTS)
    parts = {"statement": "it falls.", "measured": "m", "inside": (0.0, 1.0)}
    failing = control(claim_of_seeds, "falls", values=values, **parts)
    assert counted([statement, failing]) == (
        "0 of 1 statements are shown, and 0 of 1 negative controls fail; most need 6 seeds to be "
        f"judged, and there {are}."
    )
