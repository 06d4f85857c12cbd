"""What the records say of the statements."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from jaxtyping import Float

from lossgeom.lab import statistics as stats
from lossgeom.lab.studies._study import SeedRecords
from lossgeom.lab.studies.pac_bayes.config import Config
from lossgeom.lab.studies.pac_bayes.network import RANDOM, REAL
from lossgeom.lab.studies.pac_bayes.run import BASES, BOUND, SGD_TEST_ERROR, TEST_ERROR, WITHOUT_KL
from lossgeom.recording.bound_search import KL
from lossgeom.recording.claim import Claim, Interval

WU = "Wu et al., arXiv:2010.04261, abstract"
DZIUGAITE_ROY = "Dziugaite and Roy, arXiv:1703.11008"
DERIVED = f"{DZIUGAITE_ROY}; derived here"

# What each statement expects of its statistic, fixed before the seeds of the study were run.
BETTER_FIXED: Interval = (0.05, math.inf)  # BASE - APPR
BETTER_RECOMPUTED: Interval = (0.01, math.inf)  # APPR - ITER
SAYS_SOMETHING: Interval = (-math.inf, 1.0)
HOLDS: Interval = (0.0, math.inf)  # bound - error on other data
HIGHER: Interval = (0.1, math.inf)  # best bound with random labels - best one with real ones
COLLAPSED: Interval = (-math.inf, 0.1)  # KL with random labels / KL with real ones
CHANCE = 0.5  # the error of any classifier on labels that are drawn like coins

Seeds = Sequence[SeedRecords[Config]]
Ends = Float[np.ndarray, "seeds 3"]


def claims(config: Config, seeds: Seeds) -> Iterator[Claim]:
    """The verdicts."""
    yield from _real(config, seeds)
    yield from _random(seeds)
    yield from _controls(seeds)


def _ends(seeds: Seeds, labels: str, metric: str) -> Ends:
    """The last value of a metric for each seed and basis; NaN where there is none."""
    values = [
        [(seed.at(labels, basis).series(metric)[1] or [math.nan])[-1] for basis in BASES]
        for seed in seeds
    ]
    return np.array(values, dtype=float).reshape(-1, len(BASES))


def _medians(ends: Ends, form: str = ".3f") -> str:
    """Say what is known with each basis, as a median over seeds."""
    found = (statistics.median(stats.known(each) or [math.nan]) for each in ends.T.tolist())
    return ", ".join(f"{value:{form}} ({basis})" for value, basis in zip(found, BASES, strict=True))


def _real(config: Config, seeds: Seeds) -> Iterator[Claim]:
    bounds, kls, errors = (_ends(seeds, REAL, metric) for metric in (BOUND, KL, TEST_ERROR))
    base, appr, iter_ = bounds.T
    at = f"the least, after {config.bound_epochs} epochs"
    yield stats.claim_of_all(
        "decoupled_below_standard",
        statement="The bound is lower in the eigenbasis of decoupled Hessians: APPR < BASE.",
        source=WU,
        measured=f"bound in the standard basis less that in the decoupled one, {at}",
        values=(base - appr).tolist(),
        expected=BETTER_FIXED,
        note=f"Median bounds are {_medians(bounds)}.",
    )
    yield stats.claim_of_all(
        "recomputed_below_decoupled",
        statement="It is lower still where this basis is recomputed on the way: ITER < APPR.",
        source=WU,
        measured=f"bound in the decoupled basis less that in the recomputed one, {at}",
        values=(appr - iter_).tolist(),
        expected=BETTER_RECOMPUTED,
        note=f"Median KL, in nats, is {_medians(kls, '.0f')}.",
    )
    yield stats.claim_of_all(
        "below_one",
        statement="All bounds say something: they are below 1.",
        source=DZIUGAITE_ROY,
        measured="the largest bound, over bases and seeds",
        values=bounds.max(1).tolist(),
        expected=SAYS_SOMETHING,
    )
    yield stats.claim_of_all(
        "holds",
        statement="The error on other data is below every bound on it.",
        source=DZIUGAITE_ROY,
        measured="bound less the posterior's test error, the least over bases and seeds",
        values=(bounds - errors).min(1).tolist(),
        expected=HOLDS,
        note=f"Median test errors are {_medians(errors)}; of the networks that SGD found, "
        f"{_medians(_ends(seeds, REAL, SGD_TEST_ERROR)).split()[0]}.",
    )


def _random(seeds: Seeds) -> Iterator[Claim]:
    bounds, kls, errors = (_ends(seeds, RANDOM, metric) for metric in (BOUND, KL, TEST_ERROR))
    real, of_all = _ends(seeds, REAL, BOUND), partial(stats.claim_of_all, source=DERIVED)
    yield of_all(
        "holds_for_random_labels",
        statement="With labels that are drawn like coins the bound stays above the error, too.",
        measured="the least bound over bases and seeds; the error is 1/2 for any classifier",
        values=bounds.min(1).tolist(),
        expected=(CHANCE, math.inf),
        note=f"Median bounds are {_medians(bounds)}, median test errors {_medians(errors)}.",
    )
    yield of_all(
        "higher_for_random_labels",
        statement="The best bound tells random labels from real ones.",
        measured="least bound over bases with random labels less that with real ones, least",
        values=(bounds.min(1) - real.min(1)).tolist(),
        expected=HIGHER,
        note=f"In the same basis, medians are apart by {_medians(bounds - real)}.",
    )
    yield of_all(
        "random_labels_are_not_learnt",
        statement="With random labels the posterior goes back to the prior.",
        measured="largest KL over bases with random labels by the least with real ones, largest",
        values=(kls.max(1) / _ends(seeds, REAL, KL).min(1)).tolist(),
        expected=COLLAPSED,
        note=f"Median KL, in nats, is {_medians(kls, '.1f')}.",
    )


def _controls(seeds: Seeds) -> Iterator[Claim]:
    base, _, iter_ = _ends(seeds, REAL, BOUND).T
    of_all = partial(stats.control, stats.claim_of_all)
    yield of_all(
        "without_kl",
        statement="a bound without a KL is above the error with random labels, too.",
        measured="bound of Chernoff from the training error of SGD's network, the least over seeds",
        values=_ends(seeds, RANDOM, WITHOUT_KL)[:, 0].tolist(),
        expected=(CHANCE, math.inf),
    )
    yield of_all(
        "standard_below_recomputed",
        statement="the bound is lower in the standard basis than in the recomputed one.",
        measured="bound in the recomputed basis less that in the standard one, the least",
        values=(iter_ - base).tolist(),
        expected=BETTER_RECOMPUTED,
    )


def summary(config: Config, found: Sequence[Claim]) -> str:
    """The result in a sentence or two."""
    least = {claim.id: claim.statistic for claim in found}
    return (
        f"On {config.network.data}, {stats.counted(found)} APPR is at least "
        f"{least['decoupled_below_standard']:.2f} below BASE, and ITER "
        f"{least['recomputed_below_decoupled']:.2f} below APPR. Every test error is at least "
        f"{least['holds']:.2f} below its bound; random labels raise the best bound by "
        f"{least['higher_for_random_labels']:.2f} or more."
    )
