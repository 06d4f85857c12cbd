"""What the records say of the statements."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

from lossgeom.lab import statistics as stats
from lossgeom.lab.studies._solution import GAP, JACOBIAN
from lossgeom.lab.studies._study import SeedRecords
from lossgeom.lab.studies._sweep import (
    BEATS,
    ENDS,
    Ends,
    jacobian_beats_sharpness,
    shuffled,
    trends,
)
from lossgeom.lab.studies.batch_size.config import EPOCHS, UPDATES, Config
from lossgeom.lab.studies.batch_size.run import CERTIFIED, FOUND
from lossgeom.recording.claim import Claim, Interval

PAPER_A = "MacDonald et al., arXiv:2305.14683, figure 4"
READING = f"{PAPER_A}, and its explanation by the local variation"
REVIEW = "asked for in the public review of MacDonald et al., arXiv:2305.14683"

# What each statement expects of its statistic, fixed before the seeds of the study were run.
RISES: Interval = (0.8, math.inf)  # rank correlation with the batch size
FALLS: Interval = (-math.inf, -0.8)
MOSTLY: Interval = (0.7, math.inf)  # share of pairs of runs
APART: Interval = (1.0, math.inf)  # lower side of one bracket over the upper side of another

BATCH = 2  # the place of the batch size among the settings; what is equal and the rate are before
EQUAL = {EPOCHS: PAPER_A, UPDATES: REVIEW}


def claims(config: Config, records: Sequence[SeedRecords[Config]]) -> Iterator[Claim]:
    """The verdicts."""
    seeds, last = [Ends.of(each) for each in records], config.lr[-1]
    for equal, source in EQUAL.items():
        small = [seed.only({0: (equal,), 1: config.lr[:-1]}) for seed in seeds]
        yield from trends(
            small, BATCH, dict.fromkeys(ENDS, RISES), ending=f"_at_equal_{equal}", source=source,
            cause=f"At smaller learning rates and an equal number of {equal}, a larger batch",
            of=f"the batch size, averaged over all learning rates but the largest; {equal} equal",
        )  # fmt: skip
    at_last = [seed.only({1: config.lr[-1:]}) for seed in seeds]
    yield from trends(
        [seed.only({0: (EPOCHS,)}) for seed in at_last], BATCH,
        {JACOBIAN.name: FALLS, GAP: RISES}, ending="_at_largest_lr", source=PAPER_A,
        cause="At the largest learning rate, a larger batch",
        of=f"the batch size at lr = {last:g}; epochs equal",
    )  # fmt: skip
    yield from _variation(last, at_last)
    yield from _certified(config, seeds)
    yield jacobian_beats_sharpness(seeds, PAPER_A)
    of = "the batch size, averaged over learning rates and what is equal"
    yield shuffled(seeds, BATCH, RISES, cause="a larger batch", of=of)


def _variation(last: float, seeds: Sequence[Ends]) -> Iterator[Claim]:
    """Whether the local variation explains what the Jacobian norm at the last rate does not."""
    pairs = [list(pairs_of(seed)) for seed in seeds]
    against = [[v > 0 for j, v, gap in each if j < 0 < gap] for each in pairs]
    yield from trends(
        seeds, BATCH, {FOUND: RISES}, ending="_at_largest_lr", source=READING,
        cause="At the largest learning rate, a larger batch",
        of=f"the batch size at lr = {last:g}, averaged over equal epochs and equal updates",
    )  # fmt: skip
    yield stats.claim_of_seeds(
        "variation_explains_the_gap",
        statement="Where a larger batch gives a smaller Jacobian norm and yet a larger gap, the "
        "local variation is larger.",
        source=READING,
        of=f"share of such pairs of runs at lr = {last:g} in which it is",
        values=[stats.mean(map(float, each)) for each in against],
        inside=MOSTLY,
        note=f"Of {sum(map(len, pairs))} pairs, {sum(map(len, against))} are such.",
    )
    yield stats.claim_of_seeds(
        "variation_beats_jacobian",
        statement="At the largest learning rate, the gap goes with the local variation more "
        "closely than with the Jacobian norm.",
        source=READING,
        of=f"rank correlation of the local variation with the gap over the runs at lr = {last:g}, "
        "without those that diverged or learned nothing, less that of the Jacobian norm",
        values=[
            seed.correlation(FOUND, GAP) - seed.correlation(JACOBIAN.name, GAP) for seed in seeds
        ],
        inside=BEATS,
    )


def _certified(config: Config, seeds: Sequence[Ends]) -> Iterator[Claim]:
    last, sizes = config.lr[-1], config.batch_size
    yield stats.claim_over_seeds(
        "variation_certainly_rises",
        statement="What is certified of the local variation is enough to say that it rises.",
        source=READING,
        measured=f"what is found of the variation with the largest batch at lr = {last:g}, divided "
        "by what is certified of it with the smallest; epochs equal",
        values=_ratios(seeds, last, sizes[-1], sizes[0]),
        expected=APART,
        note=stats.means(
            {f"found over certified, batch {n}": _ratios(seeds, last, n, n) for n in sizes}, ".2f"
        ),
    )


def summary(config: Config, found: Sequence[Claim]) -> str:
    """The result in a sentence or two."""
    explains = next(claim for claim in found if claim.id == "variation_explains_the_gap")
    return (
        f"On {config.network.data} with SGD, {stats.counted(found)} That the local variation of "
        "the Jacobian explains a gap that grows while the Jacobian norm falls is "
        f"{explains.verdict}."
    )


# The statistics of a seed


def pairs_of(seed: Ends) -> Iterator[tuple[float, float, float]]:
    """How Jacobian norm, local variation and gap differ, with a larger batch less a smaller.

    Over all pairs of runs with the same number of epochs, or of updates, but for those that
    diverged or learned nothing.
    """
    places = [place for place, run in seed.runs.items() if run is not None]
    for small, large in itertools.combinations(sorted(places), 2):
        if small[0] == large[0]:
            jacobian, found, gap = (
                seed.at(large, metric) - seed.at(small, metric)
                for metric in (JACOBIAN.name, FOUND, GAP)
            )
            yield jacobian, found, gap


def _ratios(seeds: Sequence[Ends], lr: float, size: int, other: int) -> list[float]:
    """What is found of the variation with one batch size, over what is certified with another."""
    found, certified = ((EPOCHS, lr, batch) for batch in (size, other))
    ratios = [seed.at(found, FOUND) / seed.at(certified, CERTIFIED) for seed in seeds]
    # else a run diverged or learned nothing
    return [ratio if 0 < ratio < math.inf else math.nan for ratio in ratios]
