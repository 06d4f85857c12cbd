"""What the records say of the statements."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from lossgeom.lab import statistics as stats
from lossgeom.lab.studies._study import SeedRecords
from lossgeom.lab.studies.jacobian_intervention.config import (
    ARMS,
    CONTROL,
    FREE,
    HELD_OFF,
    MOVED_OFF,
    Config,
)  # fmt: skip
from lossgeom.lab.studies.jacobian_intervention.run import GAP, HELD, MEAN, OFF, TEST_ERROR
from lossgeom.recording.claim import Claim, Interval

OURS = "ours; MacDonald et al., arXiv:2305.14683, leave the question open"

# What each statement expects of its statistic, fixed before the seeds of the study were run.
LOWER: Interval = (0.15, math.inf)  # part of the gap, or of the test error, that is gone
LITTLE_LOWER: Interval = (0.05, math.inf)
BETTER: Interval = (0.0, math.inf)
UNCHANGED: Interval = (-0.05, 0.05)
AS_PREDICTED: Interval = (0.5, 2.0)  # change of the gap over what it is predicted to be
ON_CURVE: Interval = (-math.inf, HELD_OFF)
ON_TARGET: Interval = (-math.inf, MOVED_OFF)

Seed = SeedRecords[Config]
Seeds = Sequence[Seed]

over_seeds = partial(stats.claim_over_seeds, source=OURS)
of_all = partial(stats.claim_of_all, source=OURS)
control = partial(stats.control, stats.claim_over_seeds)
control_of_all = partial(stats.control, stats.claim_of_all)


def claims(config: Config, seeds: Seeds) -> Iterator[Claim]:  # noqa: ARG001
    """The verdicts."""
    yield from _moved(seeds)
    yield from _mediated(seeds)
    yield from _on_target(seeds)


def _moved(seeds: Seeds) -> Iterator[Claim]:
    lower = "Lowering the squared Jacobian norm to {} of its curve at held sharpness lowers the {}."
    leave = "Lowering sharpness to {} of its curve at a held Jacobian norm leaves the gap as it is."
    for make, name, arm, of, expected, statement in (
        (over_seeds, "jacobian_0.4", "jacobian_0.4", GAP, LOWER, lower.format(0.4, GAP)),
        (over_seeds, "jacobian_0.7", "jacobian_0.7", GAP, LITTLE_LOWER, lower.format(0.7, GAP)),
        (over_seeds, "test_error", "jacobian_0.4", TEST_ERROR, BETTER,
         lower.format(0.4, TEST_ERROR)),
        (over_seeds, "sharpness_0.4", "sharpness_0.4", GAP, UNCHANGED, leave.format(0.4)),
        (over_seeds, "sharpness_0.7", "sharpness_0.7", GAP, UNCHANGED, leave.format(0.7)),
        (control, "sharpness_lowers", "sharpness_0.4", GAP, LOWER,
         "lowering sharpness at a held Jacobian norm lowers the gap as far."),
        (control, "free_lowers", FREE, GAP, LITTLE_LOWER,
         "the gap is lower where nothing is held."),
    ):  # fmt: skip
        yield make(
            name,
            statement=statement,
            measured=f"part of the {of} of the runs with both held that is gone, of means over the "
            "last fifth of training",
            values=[gone(seed, arm, of) for seed in seeds],
            expected=expected,
        )


def _mediated(seeds: Seeds) -> Iterator[Claim]:
    yield over_seeds(
        "sharpness_free",
        statement="Lowering the Jacobian norm does as much where sharpness is free.",
        measured="part of the gap that is gone where the squared Jacobian norm is lowered to 0.4 "
        "of its curve and sharpness is free, less that where it is held",
        values=[gone(seed, "jacobian_0.4_alone") - gone(seed, "jacobian_0.4") for seed in seeds],
        expected=UNCHANGED,
    )
    found = [gone(seed, "sharpness_0.4_alone") for seed in seeds]
    squared = "squared Jacobian norm"
    for make, name, of, label, statement in (
        (over_seeds, "mediated", HELD[0], squared, "A penalty on sharpness with a free Jacobian "
         "norm lowers the gap about as far as it lowers that norm."),
        (control, "mediated_by_sharpness", HELD[1], "sharpness", "it lowers the gap as far as it "
         "lowers sharpness."),
    ):  # fmt: skip
        yield make(
            name,
            statement=statement,
            measured="fall of the logarithm of the gap where sharpness is lowered to 0.4 of its "
            f"curve, over b times that of the {label}; b is the fall of the logarithm of the gap "
            f"for that of the {squared}, by least squares over the arms that lower it at held "
            "sharpness",
            values=[as_predicted(seed, of) for seed in seeds],
            expected=AS_PREDICTED,
            note=stats.means({"part of the gap that is gone": found}),
        )


def _on_target(seeds: Seeds) -> Iterator[Claim]:
    for make, name, of, expected, statement in (
        (of_all, "held", lambda factor: factor == 1, ON_CURVE, "What is held stays on its curve."),
        (of_all, "moved", lambda factor: factor not in (1, None), ON_TARGET,
         "What is moved gets near its target."),
        (control_of_all, "free", lambda factor: factor is None, ON_CURVE,
         "what is left free while the other one moves stays on its curve, too."),
    ):  # fmt: skip
        yield make(
            name,
            statement=statement,
            measured="relative difference of its mean over the last fifth of training from that "
            "of its target; the largest of all arms that hold or move any",
            values=[off_target(seed, of) for seed in seeds],
            expected=expected,
        )


def summary(config: Config, found: Sequence[Claim]) -> str:
    """The result in a sentence or two."""
    by_id = {claim.id: statistics.median(claim.per_seed or [math.nan]) for claim in found}
    lowers = {
        "jacobian_0.4": " A squared Jacobian norm of 0.4 times that of a free run, at the same "
        "sharpness, lowers the gap by {:.0%}.",
        "sharpness_0.4": " A sharpness of 0.4 times that of a free run, at the same Jacobian norm, "
        "lowers it by {:.1%}.",
    }
    said = "".join(stats.note(text, by_id[name]) for name, text in lowers.items())
    return f"On {config.network.data}, {stats.counted(found)}{said}"


# The statistics of a seed


def end(seed: Seed, arm: str, name: str) -> float:
    """What a run ends with; NaN if it is left out."""
    return math.nan if seed.at(arm).for_report.left_out else seed.series[arm,][name][-1]


def gone(seed: Seed, arm: str, of: str = GAP) -> float:
    """The part of what the control has that an arm has not."""
    return 1 - end(seed, arm, of) / end(seed, CONTROL, of)


def fall(seed: Seed, arm: str, of: str) -> float:
    """How far an arm is below the control, in logarithms."""
    ratio = 1 - gone(seed, arm, of)
    return -math.log(ratio) if ratio > 0 else math.nan


def as_predicted(seed: Seed, name: str) -> float:
    """What a penalty on sharpness does to the gap, over what its effect on a quantity predicts."""
    lowered = ("jacobian_0.7", "jacobian_0.4")
    x, y = ([fall(seed, arm, of) for arm in lowered] for of in (MEAN[HELD[0]], GAP))
    slope = sum(a * b for a, b in zip(x, y, strict=True)) / sum(a * a for a in x)
    alone = "sharpness_0.4_alone"
    predicted = slope * fall(seed, alone, MEAN[name])
    return fall(seed, alone, GAP) / predicted if predicted else math.nan


def off_target(seed: Seed, of: Callable[[float | None], bool]) -> float:
    """The largest error of quantities with some factors, in arms that hold or move any."""
    errors = [
        abs(seed.series[arm,].get(OFF[name], [math.nan])[-1])
        for arm, factors in ARMS.items()
        for name, factor in zip(HELD, factors, strict=True)
        if arm != FREE and of(factor)
    ]
    return math.nan if any(map(math.isnan, errors)) else max(errors)
