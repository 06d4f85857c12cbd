"""Claims about correlations over runs."""

import math
from itertools import product

import numpy as np
import pytest

from lossgeom.lab.correlation_claims import claim_of_correlation
from lossgeom.lab.statistics import control
from lossgeom.recording.correlations import Runs

pytestmark = pytest.mark.quick
PARTS = {"statement": "s", "source": "p", "measured": "m"}


def of_seeds(seeds):
    """Runs of 8 settings, in which x goes with the outcome y, and z does not."""
    rng, labels = np.random.default_rng(0), list(product(range(seeds), range(8)))
    x, z = (np.array([of for _, of in labels]) + rng.normal(size=len(labels)) for _ in range(2))
    columns = {
        "x": x,
        "z": z * rng.choice([-1, 1], len(labels)),
        "y": x + 0.3 * rng.normal(size=len(labels)),
    }
    return Runs(*zip(*labels, strict=True), {name: of.tolist() for name, of in columns.items()})


def test_a_correlation_is_judged_by_its_interval():
    found = of_seeds(6).correlation("x", "y")
    shown = claim_of_correlation("a", found=found, expected=(0.0, 1.0), note="More.", **PARTS)
    assert (shown.verdict, shown.interval) == ("shown", found.interval())
    assert (len(shown.per_seed), shown.note) == (6, "Over 48 runs. More.")
    assert 1e-4 < shown.chance < 0.025  # no less than what 10,000 resamples can tell
    failed = control(
        claim_of_correlation, "a", statement="s", measured="m", found=found, expected=(-1.0, 0.0)
    )
    assert (failed.verdict, failed.as_expected) == ("contradicted", True)


def test_the_difference_of_two_correlations():
    runs = of_seeds(6)
    parts = {"expected": (0.0, 2.0), **PARTS}
    ahead = claim_of_correlation("a", found=runs.difference("x", "z", "y"), **parts)
    assert ahead.verdict == "shown"
    none = claim_of_correlation("a", found=runs.difference("x", "x", "y"), **parts)
    assert (none.verdict, none.statistic) == ("inconclusive", 0.0)
    assert none.note.endswith("An interval needs 5 seeds and 5 settings, and values that differ.")


def test_few_seeds_are_not_judged_and_runs_without_values_are_told_of():
    runs = of_seeds(2)
    runs.columns["x"][3] = math.nan
    found = claim_of_correlation("a", found=runs.correlation("x", "y"), expected=(0, 1), **PARTS)
    assert (found.verdict, found.chance) == ("inconclusive", 1.0)
    assert found.note.startswith("Over 15 runs, without 1 that have no finite values. An interval")
