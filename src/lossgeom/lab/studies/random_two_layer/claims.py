"""What the records say of the theorem."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from operator import truediv

from lossgeom.lab import statistics as stats
from lossgeom.lab.studies._stages import over_seeds
from lossgeom.lab.studies._study import SeedRecords
from lossgeom.lab.studies.random_two_layer.config import FEWER, Config
from lossgeom.recording.claim import Claim, Interval

WU = "Wu et al., arXiv:2010.04261, theorem on random two-layer networks"
DERIVED = f"derived here, after {WU}"

# What each statement expects of its statistic, fixed before the seeds of the study were run.
FALLS: Interval = (-math.inf, -0.4)  # power of the width
SMALL: Interval = (-math.inf, 0.2)  # ratio of eigenvalues
SAME_SPACE: Interval = (0.99, math.inf)  # overlap
WITHIN_TWO: Interval = (0.5, 2.0)  # measured by predicted
MORE_IS_MISSING: Interval = (1.5, math.inf)  # of the overlap, as a multiple

Seeds = Sequence[SeedRecords[Config]]

RATIO = "ratio of the C-th eigenvalue of E[M] to the one before"
OVERLAP = "overlap of the space of the C - 1 largest eigenpairs of E[M] with that space"
POWER = "power of the width n in the {}, from the least to the largest"


def claims(config: Config, seeds: Seeds) -> Iterator[Claim]:
    """The verdicts."""
    yield from _theorem(config, seeds)
    yield from _beside_it(config, seeds)
    yield from _controls(config, seeds)


def _theorem(config: Config, seeds: Seeds) -> Iterator[Claim]:
    n, of_median = config.widths[-1], partial(stats.claim_over_seeds, source=WU)
    yield of_median(
        "gap_grows",
        statement="The gap after C - 1 eigenvalues of the first layer's E[M] grows with the width.",
        measured=POWER.format(RATIO),
        values=powers(config, seeds, "value"),
        expected=FALLS,
        note=means(config, seeds, "value"),
    )
    yield of_median(
        "gap",
        statement="A wide network has a gap after C - 1 eigenvalues.",
        measured=f"{RATIO}, at width {n}",
        values=at(seeds, n),
        expected=SMALL,
    )
    yield of_median(
        "same_space",
        statement="The C - 1 largest eigenpairs span W_2^T {a : a orthogonal to (1, ..., 1)}.",
        measured=f"{OVERLAP}, at width {n}",
        values=at(seeds, n, "overlap"),
        expected=SAME_SPACE,
        note=means(config, seeds, "overlap"),
    )
    overlaps = zip(*(at(seeds, n, "overlap") for n in config.widths), strict=True)
    yield stats.claim_of_seeds(
        "overlap_rises",
        statement="The overlap rises with the width.",
        source=WU,
        values=[stats.rank_correlation(config.widths, row) for row in overlaps],
        inside=(1.0, math.inf),
        of="rank correlation of overlap and width",
    )


def _beside_it(config: Config, seeds: Seeds) -> Iterator[Claim]:
    n = config.widths[-1]
    yield stats.claim_over_seeds(
        "independent_masks",
        statement="Masks that are independent coin tosses explain the gap up to a factor of two.",
        source=DERIVED,
        measured=f"{RATIO}, as a multiple of that of B/4 + diag(B)/4, at width {n}",
        values=list(map(truediv, at(seeds, n), at(seeds, n, "predicted"))),
        expected=WITHIN_TWO,
    )
    missing = zip(over_seeds(seeds, "fewer_inputs"), at(seeds, n, "overlap"), strict=True)
    yield stats.claim_over_seeds(
        "inputs_are_missing",
        statement="What a wide network's overlap lacks of 1 is for want of inputs.",
        source="measured here",
        measured=f"what it lacks with 1/{FEWER} of the inputs, as a multiple, at width {n}",
        values=[(1 - fewer) / (1 - full) for fewer, full in missing],
        expected=MORE_IS_MISSING,
    )


def _controls(config: Config, seeds: Seeds) -> Iterator[Claim]:
    first, *_, last = config.widths
    of_median = partial(stats.control, stats.claim_over_seeds)
    yield of_median(
        "gap_before",
        statement="the gap one eigenvalue earlier grows with the width, too.",
        measured=POWER.format("ratio of the last two of C - 1 eigenvalues"),
        values=powers(config, seeds, "earlier"),
        expected=FALLS,
    )
    yield of_median(
        "narrow",
        statement="a narrow network has that gap.",
        measured=f"{RATIO}, at width {first}",
        values=at(seeds, first),
        expected=SMALL,
    )
    others = {
        "one_output": "W_2^T {a : a orthogonal to (1, 0, ..., 0)}",
        "other": "the space of another network",
    }
    for name, space in others.items():
        yield of_median(
            name,
            statement=f"the C - 1 largest eigenpairs span {space}.",
            measured=f"{OVERLAP}, at width {last}",
            values=at(seeds, last, name),
            expected=SAME_SPACE,
        )


def summary(config: Config, found: Sequence[Claim]) -> str:
    """The result in a sentence or two."""
    by_id = {claim.id: claim.statistic for claim in found}
    return (
        f"{stats.counted(found)} From width {config.widths[0]} to {config.widths[-1]} the ratio of "
        f"the C-th eigenvalue to the one before falls from {by_id['control_narrow']:.2f} to "
        f"{by_id['gap']:.2f}, and the overlap gets to {by_id['same_space']:.4f}."
    )


# The statistics


def at(seeds: Seeds, n: int, number: str = "value") -> list[float]:
    """A number of each seed at a width."""
    return over_seeds(seeds, f"width-{n}", number)


def powers(config: Config, seeds: Seeds, number: str) -> list[float]:
    """The power of the width by which a number of each seed changes from the first to the last."""
    first, *_, last = config.widths
    ratios = map(truediv, at(seeds, last, number), at(seeds, first, number))
    return [math.log(ratio) / math.log(last / first) for ratio in ratios]


def means(config: Config, seeds: Seeds, number: str) -> str:
    """Its means at every width, for a note."""
    return stats.means({f"n = {n}": at(seeds, n, number) for n in config.widths}, ".4g")
