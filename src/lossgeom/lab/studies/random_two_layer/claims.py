"""What the records say of the theorem."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from lossgeom.claim import Claim, Interval
from lossgeom.lab import statistics as stats
from lossgeom.lab.studies._stages import over_seeds
from lossgeom.lab.studies._study import SeedRecords
from lossgeom.lab.studies.random_two_layer.config import FEWER, Config

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
OVERLAP = "overlap of the space of the C - 1 largest eigenpairs of E[M] with "


def claims(config: Config, seeds: Seeds) -> Iterator[Claim]:
    """The verdicts."""
    first, last = (f"at width {n}" for n in (config.widths[0], config.widths[-1]))
    by_width = f"power of the width n in the {{}}, from n = {config.widths[0]} to the largest"
    yield stats.claim_over_seeds(
        "gap_grows",
        statement="The gap after C - 1 eigenvalues of the first layer's E[M] grows with the width.",
        source=WU,
        measured=by_width.format(RATIO),
        values=powers(config, seeds, "value"),
        expected=FALLS,
        note=means(config, seeds, "value"),
    )
    yield stats.claim_over_seeds(
        "gap",
        statement="A wide network has a gap after C - 1 eigenvalues.",
        source=WU,
        measured=f"{RATIO}, {last}",
        values=at(seeds, config.widths[-1]),
        expected=SMALL,
    )
    yield stats.claim_over_seeds(
        "same_space",
        statement="The C - 1 largest eigenpairs of a wide network span what W_2^T makes of the "
        "directions of the outputs in which these do not move together.",
        source=WU,
        measured=f"{OVERLAP}that space, {last}",
        values=at(seeds, config.widths[-1], "overlap"),
        expected=SAME_SPACE,
        note=means(config, seeds, "overlap"),
    )
    yield stats.claim_of_seeds(
        "overlap_rises",
        statement="The overlap rises with the width.",
        source=WU,
        values=[stats.rank_correlation(config.widths, row) for row in series(config, seeds)],
        inside=(1.0, math.inf),
        of="rank correlation of overlap and width",
    )
    yield from _why(config, seeds, last)
    yield from _controls(config, seeds, first, last, by_width)


def _why(config: Config, seeds: Seeds, last: str) -> Iterator[Claim]:
    n = config.widths[-1]
    ratios = zip(at(seeds, n), at(seeds, n, "predicted"), strict=True)
    yield stats.claim_over_seeds(
        "independent_masks",
        statement="Masks that are independent coin tosses explain the gap up to a factor of two.",
        source=DERIVED,
        measured=f"{RATIO}, as a multiple of that of B/4 + diag(B)/4, {last}",
        values=[measured / predicted for measured, predicted in ratios],
        expected=WITHIN_TWO,
    )
    missing = zip(over_seeds(seeds, "fewer_inputs"), at(seeds, n, "overlap"), strict=True)
    yield stats.claim_over_seeds(
        "inputs_are_missing",
        statement="What a wide network's overlap lacks of 1 is for want of inputs.",
        source="measured here",
        measured=f"1 less the overlap with {config.inputs // FEWER} inputs, as a multiple of the "
        f"same with {config.inputs}, {last}",
        values=[(1 - fewer) / (1 - full) for fewer, full in missing],
        expected=MORE_IS_MISSING,
    )


def _controls(
    config: Config, seeds: Seeds, first: str, last: str, by_width: str
) -> Iterator[Claim]:
    yield stats.control(
        stats.claim_over_seeds,
        "gap_before",
        statement="the gap one eigenvalue earlier grows with the width, too.",
        measured=by_width.format("ratio of the last two of C - 1 eigenvalues"),
        values=powers(config, seeds, "earlier"),
        expected=FALLS,
    )
    yield stats.control(
        stats.claim_over_seeds,
        "narrow",
        statement="a narrow network has that gap.",
        measured=f"{RATIO}, {first}",
        values=at(seeds, config.widths[0]),
        expected=SMALL,
    )
    others = {
        "one_output": "what W_2^T makes of the directions in which the first output does not move",
        "other": "the same space of another network",
    }
    for name, space in others.items():
        yield stats.control(
            stats.claim_over_seeds,
            name,
            statement=f"the C - 1 largest eigenpairs span {space}.",
            measured=f"{OVERLAP}that space, {last}",
            values=at(seeds, config.widths[-1], name),
            expected=SAME_SPACE,
        )


def summary(config: Config, found: Sequence[Claim]) -> str:
    """The result in a sentence or two."""
    by_id = {claim.id: claim for claim in found}
    return (
        f"{stats.counted(found)} From width {config.widths[0]} to {config.widths[-1]} the ratio of "
        f"the C-th eigenvalue to the one before falls from {by_id['control_narrow'].statistic:.2f} "
        f"to {by_id['gap'].statistic:.2f}, and the overlap gets to "
        f"{by_id['same_space'].statistic:.4f}."
    )


# The statistics


def at(seeds: Seeds, n: int, number: str = "value") -> list[float]:
    """A number of each seed at a width."""
    return over_seeds(seeds, f"width-{n}", number)


def series(config: Config, seeds: Seeds) -> list[tuple[float, ...]]:
    """The overlaps of each seed, over the widths."""
    return list(zip(*(at(seeds, n, "overlap") for n in config.widths), strict=True))


def powers(config: Config, seeds: Seeds, number: str) -> list[float]:
    """The power of the width by which a number of each seed changes from the first to the last."""
    first, last = config.widths[0], config.widths[-1]
    ends = zip(at(seeds, first, number), at(seeds, last, number), strict=True)
    return [math.log(b / a) / math.log(last / first) for a, b in ends]


def means(config: Config, seeds: Seeds, number: str) -> str:
    """The means over seeds at every width, for a note."""
    each = (f"{stats.mean_known(at(seeds, n, number), '.4g')} at {n}" for n in config.widths)
    return f"Means over seeds: {', '.join(each)}."
