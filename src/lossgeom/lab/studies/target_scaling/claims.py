"""What the records say of the statements."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial

from lossgeom.lab import statistics as stats
from lossgeom.lab.studies._growth import LAST, along, exponent, grown, numbers
from lossgeom.lab.studies._solution import JACOBIAN_MAX, SHARPNESS
from lossgeom.lab.studies._study import SeedRecords
from lossgeom.lab.studies.target_scaling.config import LINEAR, SCALED, SHIFTED, Config
from lossgeom.recording.claim import Claim, Interval

PAPER_A = "MacDonald et al., arXiv:2305.14683"

# What each statement expects of its statistic, fixed before the seeds of the study were run.
LARGER: Interval = (0.5, math.inf)  # power of the scale in the Jacobian norm
SHARPENS_MORE: Interval = (0.25, math.inf)  # power of the scale in how much runs sharpen

Seed = SeedRecords[Config]


def claims(config: Config, seeds: Sequence[Seed]) -> Iterator[Claim]:
    """The verdicts."""
    small, large = config.target_scales[0], config.target_scales[-1]
    to = f"from the scale {small:g} to {large:g}, if neither run diverges"
    jacobian = partial(stats.claim_over_seeds, expected=LARGER)
    norm = f"power of {{}} with which the largest Jacobian norm at the end is larger {to}"
    yield jacobian(
        "jacobian_grows",
        statement="Targets that are further apart make a larger Jacobian norm.",
        source=f"{PAPER_A}, theorem 5.1",
        measured=norm.format("the scale"),
        values=[jacobian_is_larger(seed, SCALED) for seed in seeds],
    )
    powers = [sharpens_more(seed, SCALED) for seed in seeds]
    sharpens = partial(stats.claim_of_seeds, inside=SHARPENS_MORE)
    of = (
        f"power of the scale with which the largest sharpness over that at the start is larger {to}"
    )
    yield sharpens(
        "sharpens_more",
        statement="Targets that are further apart make a network sharpen more.",
        source=f"{PAPER_A}, section 5",
        of=of,
        values=powers,
        note=stats.note("Its mean over seeds is {:.2f}.", stats.mean(powers)),
    )
    yield stats.control(
        jacobian,
        "shifted",
        statement="targets that are as long, but no further apart, make a larger Jacobian "
        "norm, too.",
        measured=norm.format("their length"),
        values=[jacobian_is_larger(seed, SHIFTED) for seed in seeds],
    )
    yield stats.control(
        sharpens,
        "linear_model",
        statement="a linear model sharpens more, too, whose Jacobian norm grows.",
        of=of,
        values=[sharpens_more(seed, LINEAR) for seed in seeds],
        note=stats.note(
            "Its Jacobian norm grows with a power of {:.2f}.",
            stats.mean(jacobian_is_larger(seed, LINEAR) for seed in seeds),
        ),
    )


def summary(config: Config, found: Sequence[Claim]) -> str:
    """The result in a sentence or two."""
    by_id = {claim.id: claim for claim in found}
    sharpens = stats.mean_known(by_id["sharpens_more"].per_seed)
    return (
        f"On {config.network.data}, {stats.counted(found)} With the scale of the targets, the "
        f"Jacobian norm grows with a power of {by_id['jacobian_grows'].statistic:.2f}, and how "
        f"much a network sharpens with one of {sharpens}."
    )


# The statistics of a seed


def jacobian_is_larger(seed: Seed, kind: str) -> float:
    """The power of the scale with which the Jacobian norm at the end is larger."""
    small, large = (numbers(seed, LAST, kind, scale) for scale in ends_of(seed))
    return exponent(grown(small, large, JACOBIAN_MAX.name), scales_apart(seed))


def sharpens_more(seed: Seed, kind: str) -> float:
    """The power of the scale with which sharpening, the largest over the first, is larger."""
    small, large = (along(seed, SHARPNESS.name, kind, s, end=max) for s in ends_of(seed))
    return exponent(large - small, scales_apart(seed))


def ends_of(seed: Seed) -> tuple[float, float]:
    """The smallest and the largest scale."""
    return seed.study.target_scales[0], seed.study.target_scales[-1]


def scales_apart(seed: Seed) -> float:
    """The logarithm of the ratio of the two."""
    small, large = ends_of(seed)
    return math.log(large / small)
