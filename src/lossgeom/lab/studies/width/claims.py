"""What the records say of the statements."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from functools import partial

from lossgeom.lab import statistics as stats
from lossgeom.lab.studies._growth import (
    FIRST,
    LAST,
    PARTS,
    Part,
    along,
    numbers,
    of_part,
    share,
    shortfall,
)
from lossgeom.lab.studies._solution import SHARPNESS
from lossgeom.lab.studies._study import SeedRecords
from lossgeom.lab.studies.width.config import FEATURES, LINEARISED, NTK, STANDARD, Config
from lossgeom.recording.claim import Claim, Interval

PAPER_A = "MacDonald et al., arXiv:2305.14683, section 5"

# What each statement expects of its statistic, fixed before the seeds of the study were run.
FALLS: Interval = (-math.inf, -0.9)  # rank correlation with the width
CONSTANT: Interval = (-math.inf, 1e-3)  # relative change of sharpness
MOST: Interval = (0.5, math.inf)  # share of a shortfall

Seed = SeedRecords[Config]


def claims(config: Config, seeds: Sequence[Seed]) -> Iterator[Claim]:
    """The verdicts."""
    yield from _widths(config, seeds)
    yield from _constant(seeds)
    yield from _mediators(config, seeds)


def _widths(config: Config, seeds: Sequence[Seed]) -> Iterator[Claim]:
    sharpens = "sharpness at the end over that at the start"
    for name, kind, change, what, statement in (
        ("sharpen_less_standard", STANDARD, sharpened, sharpens, "Wider networks sharpen less."),
        ("sharpen_less_ntk", NTK, sharpened, sharpens,
         "Wider networks in NTK parametrisation sharpen less."),
        ("change_less_ntk", NTK, drifts,
         "how far the logarithm of sharpness goes since a quarter of training",
         "The sharpness of wider networks in NTK parametrisation changes less, after the first "
         "quarter of training."),
    ):  # fmt: skip
        found = {width: [change(seed, kind, width) for seed in seeds] for width in config.width}
        yield stats.claim_of_seeds(
            f"wide_{name}",
            statement=statement,
            source=PAPER_A,
            of=f"rank correlation between width and {what}, if no run diverges",
            values=[with_width(config.width, of) for of in zip(*found.values(), strict=True)],
            inside=FALLS,
            note=stats.means({f"width {width}": values for width, values in found.items()}),
        )


def _constant(seeds: Sequence[Seed]) -> Iterator[Claim]:
    constant = partial(stats.claim_of_all, expected=CONSTANT)
    measured = (
        "largest relative change of sharpness since the start, over all of training and all {} of "
        "a seed, if none diverges"
    )
    yield constant(
        "linear_do_not",
        statement="Models that are linear in their parameters do not sharpen: networks that are "
        "linearised, and those of which the last layer alone is trained.",
        source=PAPER_A,
        measured=measured.format("models"),
        values=[changes(seed, (LINEARISED, FEATURES)) for seed in seeds],
    )
    yield stats.control(
        constant,
        "networks_do_not",
        statement="networks do not sharpen, either.",
        measured=measured.format("networks"),
        values=[changes(seed, (STANDARD,)) for seed in seeds],
    )


def _mediators(config: Config, seeds: Sequence[Seed]) -> Iterator[Claim]:
    widest = config.width[-1]
    most = partial(stats.claim_over_seeds, expected=MOST)
    of = (
        "share that {} has in what keeps the layers' parts of the Gauss-Newton matrix from growing "
        f"as |J|^2 does from the start to the end, at a width of {widest}, if it does not diverge"
    )
    parts: dict[str, list[float]] = {
        part: [breaks(seed, widest, part) for seed in seeds] for part in PARTS
    }
    narrow = (breaks(seed, config.width[0], "tail") for seed in seeds)
    yield most(
        "tail_breaks",
        statement="What keeps the sharpness of the widest network from growing as the Jacobian "
        "does is that a layer's part has no factor for the Jacobians of the layers up to it.",
        source=PAPER_A,
        measured=of.format("the growth of tail Jacobians, less than that of the whole,"),
        values=parts["tail"],
        note=f"{stats.means(parts)} At a width of {config.width[0]} that of the tail is "
        f"{stats.mean_known(narrow)}.",
    )
    yield stats.control(
        most,
        "df_breaks",
        statement="it is Df of the layers, which shrinks.",
        measured=of.format("Df"),
        values=parts["layer"],
    )


def summary(config: Config, found: Sequence[Claim]) -> str:
    """The result in a sentence or two."""
    by_id = {claim.id: claim for claim in found}
    return (
        f"On {config.network.data}, {stats.counted(found)} That wider networks sharpen less is "
        f"{by_id[f'wide_sharpen_less_{STANDARD}'].verdict}, and "
        f"{by_id[f'wide_sharpen_less_{NTK}'].verdict} in NTK parametrisation; the sharpness of "
        f"models that are linear in their parameters changes by "
        f"{by_id['linear_do_not'].statistic:.1g} at most."
    )


# The statistics of a seed


def sharpened(seed: Seed, kind: str, width: int) -> float:
    """Sharpness at the end over that at the start."""
    return math.exp(along(seed, SHARPNESS.name, kind, width))


def drifts(seed: Seed, kind: str, width: int) -> float:
    """How far the logarithm of sharpness goes since a quarter of training."""
    start = lambda values: values[len(values) // 4]  # noqa: E731
    return abs(along(seed, SHARPNESS.name, kind, width, start=start))


def with_width(widths: Sequence[int], found: Sequence[float]) -> float:
    """The rank correlation of width with what was found; NaN if a network diverged."""
    return math.nan if any(map(math.isnan, found)) else stats.rank_correlation(widths, found)


def changes(seed: Seed, kinds: Sequence[str]) -> float:
    """The largest relative change of sharpness along runs of some kinds; NaN if one diverged."""
    found = []
    for place in itertools.product(kinds, seed.study.width):
        first, *ends = (
            numbers(seed, of, *place).get(SHARPNESS.name, math.nan) for of in (FIRST, min, max)
        )
        found += [abs(end / first - 1) for end in ends]
    return math.nan if any(map(math.isnan, found)) else max(found)


def breaks(seed: Seed, width: int, part: Part) -> float:
    """The share of a part in the shortfall from start to end."""
    found = shortfall(*(numbers(seed, of, STANDARD, width) for of in (FIRST, LAST)))
    return share(of_part(found, part), found)
