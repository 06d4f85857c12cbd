"""Correlations over runs of several seeds and settings."""

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

from lossgeom.recording import correlations
from lossgeom.recording.correlations import Runs

pytestmark = pytest.mark.quick
MIXED = np.array([[1.0, -0.1, 0.7], [-0.1, 1.0, 0.2], [0.7, 0.2, 1.0]])


def runs_of(values, seeds, settings):
    """Runs in which every seed has every setting, with columns x, z and y."""
    labels = list(product(range(seeds), range(settings)))
    columns = dict(zip("xzy", np.asarray(values, dtype=float).tolist(), strict=True))
    return Runs([seed for seed, _ in labels], [setting for _, setting in labels], columns)


def drawn(rng, seeds, settings, shares=(0.3, 0.6, 0.1), mixed=MIXED):
    """Columns that are correlated between seeds, between settings and within both."""
    root = np.linalg.cholesky(mixed)
    shapes = ((seeds, 1), (1, settings), (seeds, settings))
    parts = [share**0.5 * rng.normal(size=(*shape, 3)) @ root.T
             for share, shape in zip(shares, shapes, strict=True)]  # fmt: skip
    return sum(parts).reshape(-1, 3).T


@pytest.mark.parametrize("ties", [False, True])
def test_values_are_those_of_scipy(ties):
    values = drawn(np.random.default_rng(0), 6, 7)
    x, z, y = values = np.round(values) if ties else values
    runs = runs_of(values, 6, 7)
    assert runs.correlation("x", "y").value == pytest.approx(stats.spearmanr(x, y).statistic)
    pearson = runs.correlation("x", "y", ranks=False)
    assert pearson.value == pytest.approx(stats.pearsonr(x, y).statistic)
    found = runs.difference("x", "z", "y", ranks=False)
    assert found.value == pytest.approx(pearson.value - stats.pearsonr(z, y).statistic)
    assert found.of_seeds[1] == pytest.approx(
        stats.pearsonr(x[7:14], y[7:14]).statistic - stats.pearsonr(z[7:14], y[7:14]).statistic
    )


@pytest.mark.parametrize("ranks", [False, True])
def test_a_partial_correlation_is_that_of_residuals(ranks):
    values = np.round(drawn(np.random.default_rng(1), 6, 7), 1)
    found = runs_of(values, 6, 7).correlation("x", "y", given="z", ranks=ranks)
    x, z, y = stats.rankdata(values, axis=1) if ranks else values
    fitted = np.stack([np.ones_like(z), z], 1)
    rest = [of - fitted @ np.linalg.lstsq(fitted, of)[0] for of in (x, y)]
    assert found.value == pytest.approx(stats.pearsonr(*rest).statistic)


@pytest.mark.parametrize("ranks", [False, True])
def test_resamples_are_those_of_a_plain_loop(ranks):
    """Which repeats every run as often as its seed times as often as its setting was drawn."""
    values, rng = np.round(drawn(np.random.default_rng(2), 5, 6), 1), np.random.default_rng(3)
    found = runs_of(values, 5, 6).correlation("x", "y", ranks=ranks, seed=3).resampled
    seeds = rng.multinomial(5, [1 / 5] * 5, correlations.AT_ONCE)
    settings = rng.multinomial(6, [1 / 6] * 6, correlations.AT_ONCE)
    correlate = stats.spearmanr if ranks else stats.pearsonr
    for i in range(20):
        x, _, y = np.repeat(values, np.outer(seeds[i], settings[i]).ravel(), axis=1)
        assert found[i] == pytest.approx(correlate(x, y).statistic)


def test_runs_that_share_nothing_vary_as_in_theory(monkeypatch):
    """Of settings alone: Fisher's and Steiger's variances, and Zou's interval of a difference."""
    monkeypatch.setattr(correlations, "RESAMPLES", 5000)
    n = 200
    one = drawn(np.random.default_rng(4), 1, n, shares=(0, 1, 0))
    runs = runs_of(one, 1, n)
    (_, r_zx, r_xy), (_, _, r_zy) = np.corrcoef(one)[[0, 1]]
    alone = runs.correlation("x", "y", ranks=False)
    assert alone.resampled.std() == pytest.approx((1 - r_xy**2) / n**0.5, rel=0.1)

    rest = 1 - r_xy**2 - r_zy**2
    shared = r_zx * rest - r_xy * r_zy * (rest - r_zx**2) / 2
    steiger = ((1 - r_xy**2) ** 2 + (1 - r_zy**2) ** 2 - 2 * shared) / n
    found = runs.difference("x", "z", "y", ranks=False)
    assert found.resampled.std() == pytest.approx(steiger**0.5, rel=0.1)

    joint = shared / ((1 - r_xy**2) * (1 - r_zy**2))
    (low_x, high_x), (low_z, high_z) = (
        np.tanh(np.arctanh(r) + np.array([-1.96, 1.96]) / (n - 3) ** 0.5) for r in (r_xy, r_zy)
    )
    zou = (
        found.value - math.sqrt((r_xy - low_x) ** 2 + (high_z - r_zy) ** 2
                                - 2 * joint * (r_xy - low_x) * (high_z - r_zy)),
        found.value + math.sqrt((high_x - r_xy) ** 2 + (r_zy - low_z) ** 2
                                - 2 * joint * (high_x - r_xy) * (r_zy - low_z)),
    )  # fmt: skip
    assert np.quantile(found.resampled, [0.025, 0.975]) == pytest.approx(zou, abs=0.02)


def test_intervals_cover_as_often_as_they_say(monkeypatch):
    """At least, up to 4 standard errors; those that take runs for independent do not."""
    monkeypatch.setattr(correlations, "RESAMPLES", 2500)
    rng, ours, naive = np.random.default_rng(5), [], []
    for _ in range(40):
        values = drawn(rng, 6, 12, shares=(0.05, 0.9, 0.05))
        low, high = runs_of(values, 6, 12).difference("x", "z", "y", ranks=False).interval()
        ours.append(low <= MIXED[0, 2] - MIXED[1, 2] <= high)
        low, high = stats.pearsonr(values[0], values[2]).confidence_interval()
        naive.append(low <= MIXED[0, 2] <= high)
    assert np.mean(ours) > 0.95 - 4 * math.sqrt(0.95 * 0.05 / 40)
    assert np.mean(naive) < 0.75


def test_an_interval_is_wider_at_a_higher_level_and_there_is_none_beyond_the_resamples():
    found = runs_of(drawn(np.random.default_rng(6), 12, 12), 12, 12).correlation("x", "y")
    (low, high), (lower, higher) = found.interval(), found.interval(0.99)
    assert -1 <= lower < low < found.value < high < higher <= 1
    assert found.interval(1 - 1e-6) == pytest.approx((math.nan, math.nan), nan_ok=True)


def test_there_is_no_interval_of_a_few_seeds_or_settings_or_of_what_does_not_vary():
    rng = np.random.default_rng(7)
    for seeds, settings in ((1, 12), (4, 12), (12, 4)):
        few = runs_of(drawn(rng, seeds, settings), seeds, settings).correlation("x", "y")
        assert math.isfinite(few.value)
        assert math.isnan(few.interval()[0])
    x = drawn(rng, 6, 6)[0]
    same = runs_of([x, np.full(36, 0.1), 2 * x], 6, 6)
    assert str(same.correlation("x", "y")) == "1.00 (no interval)"  # it might be less of others
    for ranks in (False, True):
        assert math.isnan(same.correlation("z", "y", ranks=ranks).value)
    assert math.isnan(same.correlation("z", "y", given="x").value)
    assert math.isnan(Runs([], [], {"x": [], "y": []}).correlation("x", "y").value)


def test_resamples_in_which_something_is_constant_count_at_both_ends():
    """A setting that is one value in most runs."""
    x = [0.0] * 35 + [1.0]
    found = runs_of([x, x, np.random.default_rng(8).normal(size=36)], 6, 6).correlation("x", "y")
    assert found.interval() == (-1.0, 1.0)


def test_runs_without_finite_values_are_left_out_of_both_correlations():
    values = drawn(np.random.default_rng(9), 6, 7)
    values[0, 3], values[1, 8] = math.inf, math.nan
    found, kept = runs_of(values, 6, 7).difference("x", "z", "y"), np.isfinite(values).all(0)
    assert (found.runs, found.left_out) == (40, 2)
    x, z, y = values[:, kept]
    assert found.value == pytest.approx(
        stats.spearmanr(x, y).statistic - stats.spearmanr(z, y).statistic
    )


def test_the_same_seed_draws_the_same():
    runs = runs_of(drawn(np.random.default_rng(10), 6, 7), 6, 7)
    again, other = runs.correlation("x", "y"), runs.correlation("x", "y", seed=1)
    assert again.interval() == runs.correlation("x", "y").interval() != other.interval()


def test_a_metric_that_no_run_has():
    for runs in (Runs([], [], {}), Runs([0, 1], "aa", {"x": [1.0, 2.0]})):
        found = runs.difference("x", "y", "z", given="w")
        assert math.isnan(found.value)
        assert (found.runs, found.left_out) == (0, len(runs.seeds))
