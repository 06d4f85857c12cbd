"""What the records say of the statements."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from lossgeom.lab import statistics as stats
from lossgeom.lab.studies._solution import GAP, JACOBIAN, JACOBIAN_MAX
from lossgeom.lab.studies._study import SeedRecords
from lossgeom.lab.studies._sweep import Ends
from lossgeom.lab.studies.learning_rate_decay import run
from lossgeom.lab.studies.learning_rate_decay.config import (
    DECAYED,
    LARGE,
    OBJECTIVES,
    SMALL,
    SQUARED,
    STEP,
    WITH,
    WITHOUT,
    Config,
)
from lossgeom.recording.claim import Claim, Interval

PAPER_A = "MacDonald et al., arXiv:2305.14683, appendix D"
LEE = "Lee et al., Implicit Jacobian regularization, in MacDonald et al., appendix D"
PAPER_B = "Ma and Ying, arXiv:2105.13462, and Mulayoff and Michaeli, arXiv:2306.07850"

# What each statement expects of its statistic, fixed before the seeds of the study were run.
LOWER: Interval = (0.0, 1.0)  # ratio
MOST_OF_IT: Interval = (0.5, math.inf)  # share of what the large rate gains
RISES_TOGETHER: Interval = (0.9, math.inf)  # rank correlation along a run
AGREES: Interval = (0.8, math.inf)  # share of pairs
TELLS: Interval = (1.1, math.inf)  # ratio of the larger to the smaller
HOLDS: Interval = (-math.inf, 1.0)  # left side over right side

Seed = SeedRecords[Config]
OF_G_X = "promise of g_x, with the first layer as measured,"
APART = "{} of the runs whose rate decays, with the squared error, and of that at the small rate"


def claims(config: Config, records: Sequence[Seed]) -> Iterator[Claim]:  # noqa: ARG001
    """The verdicts."""
    seeds = [Ends.of(each) for each in records]
    yield from _lower(seeds)
    yield from _gains(seeds, records)
    yield from _bounds(seeds)
    yield from _controls(seeds, records)


def _lower(seeds: Sequence[Ends]) -> Iterator[Claim]:
    """What a large rate that decays ends with, against a small one."""
    norm = "mean Jacobian norm in the"
    ends = [
        ("gap", GAP, "gap", PAPER_A),
        ("jacobian", JACOBIAN.name, f"{norm} input", PAPER_A),
        ("parameter_jacobian", run.PARAMETER_JACOBIAN.name, f"{norm} parameters", LEE),
    ]
    for objective, rows, which, start in (
        (WITH, ends, "with", "A"), (WITHOUT, ends[:2], "without", "Without weight decay, too, a")
    ):  # fmt: skip
        for name, metric, what, source in rows:
            yield stats.claim_over_seeds(
                name if objective == WITH else f"{name}_without_weight_decay",
                statement=f"{start} large learning rate that decays ends with a smaller {what} "
                "than a small constant one.",
                source=source,
                measured=f"{what} of the runs whose rate decays over that at the small rate, "
                f"geometric mean of both, {which} weight decay",
                values=[ratio(each, metric, objective) for each in seeds],
                expected=LOWER,
            )


def _gains(seeds: Sequence[Ends], records: Sequence[Seed]) -> Iterator[Claim]:
    yield stats.claim_of_seeds(
        "keeps_the_gain",
        statement="A learning rate that decays keeps most of what the large one gains.",
        source=PAPER_A,
        of="logarithm of the gap's ratio to that at the small rate, over the same of the large "
        "constant rate; of a seed in which this one gains",
        values=[kept(each) for each in seeds],
        inside=MOST_OF_IT,
    )
    yield stats.claim_of_seeds(
        "jacobians_go_together",
        statement="The Jacobian norms in the input and in the parameters go together in training.",
        source=LEE,
        of="rank correlation along a run of the mean Jacobian norms in the input and in the "
        "parameters, mean over runs",
        values=[together(each) for each in records],
        inside=RISES_TOGETHER,
    )
    yield stats.claim_of_seeds(
        "jacobian_tells_which_is_better",
        statement="Of a decaying and a small constant rate, that with the smaller Jacobian norm "
        "has the smaller gap.",
        source=PAPER_A,
        of="share of pairs, with and without weight decay and with the squared error, in which "
        "that is so",
        values=[agreement(each) for each in seeds],
        inside=AGREES,
    )


def _bounds(seeds: Sequence[Ends]) -> Iterator[Claim]:
    yield stats.claim_of_seeds(
        "largest_jacobian_sees_the_decay",
        statement="The Jacobian norm in the bound of theorem 6.1 tells a decaying from a small "
        "constant rate.",
        source="MacDonald et al., arXiv:2305.14683, theorem 6.1",
        of=f"ratio of the larger to the smaller {APART.format('largest Jacobian norm')}",
        values=[apart(each, JACOBIAN_MAX.name) for each in seeds],
        inside=TELLS,
    )
    for name, promise, what in (
        (run.TRACE, run.PROMISED_TRACE, "the trace of the Gauss-Newton matrix"),
        (run.G_X, run.PROMISED_G_X, "the size of gradients in the input"),
    ):
        yield stats.claim_of_all(
            promise,
            statement=f"What the learning rate at the end promises of {what} holds.",
            source=PAPER_B,
            measured=f"{what} over what is promised of it, the largest of the runs of a seed with "
            "the squared error",
            values=[worst(each, name, promise) for each in seeds],
            expected=HOLDS,
        )


def _controls(seeds: Sequence[Ends], records: Sequence[Seed]) -> Iterator[Claim]:
    yield stats.control(
        stats.claim_of_seeds,
        "settings_see_the_decay",
        statement="what the learning rate at the end promises of the trace tells them, too.",
        of=f"ratio of the larger to the smaller {APART.format('promise')}",
        values=[apart(each, run.PROMISED_TRACE) for each in seeds],
        inside=TELLS,
        note=stats.means({OF_G_X: [apart(each, run.PROMISED_G_X) for each in seeds]}),
    )
    yield stats.control(
        stats.claim_of_seeds,
        "before_the_decay",
        statement="the Jacobian norm tells a rate that will decay from one that will not.",
        of="ratio of the larger to the smaller mean Jacobian norm, with the squared error, of the "
        "runs at the large rate and with a step, before the step",
        values=[before(each) for each in records],
        inside=TELLS,
    )


def summary(config: Config, found: Sequence[Claim]) -> str:
    """The result in a sentence or two."""
    by_id = {claim.id: claim.statistic for claim in found}
    return (
        f"On {config.network.data} with a learning rate of {config.lr:g} that falls to "
        f"{config.lr * config.decay:g}, {stats.counted(found)} The gap is {by_id['gap']:.2f} times "
        f"that at the small rate, and {by_id['gap_without_weight_decay']:.2f} times without "
        "weight decay."
    )


# The statistics of a seed


def logs(seed: Ends, metric: str, objective: str) -> list[float]:
    """The logarithms of a metric's ratios to that at the small rate, of both that decay."""
    return [seed.change(metric, (objective, SMALL), (objective, each)) for each in DECAYED]


def ratio(seed: Ends, metric: str, objective: str) -> float:
    """The geometric mean of the ratios of both runs whose rate decays."""
    return math.exp(stats.mean(logs(seed, metric, objective)))


def apart(seed: Ends, metric: str) -> float:
    """The same with the squared error, or its inverse, whichever is above 1."""
    return math.exp(abs(stats.mean(logs(seed, metric, SQUARED))))


def worst(seed: Ends, name: str, promise: str) -> float:
    """What is measured over what is promised, the largest with the squared error."""
    runs = [run for (objective, _), run in seed.runs.items() if objective == SQUARED and run]
    return max((run[name] / run[promise] for run in runs if promise in run), default=math.nan)


def kept(seed: Ends) -> float:
    """The share of what the large rate gains that is left; NaN where it gains nothing."""
    gained = seed.change(GAP, (WITH, SMALL), (WITH, LARGE))
    return stats.mean(logs(seed, GAP, WITH)) / gained if gained < 0 else math.nan


def agreement(seed: Ends) -> float:
    """The share of pairs in which the smaller Jacobian norm has the smaller gap."""
    return stats.mean(
        jacobian * gap > 0
        for each in OBJECTIVES
        for jacobian, gap in zip(*(logs(seed, m, each) for m in (JACOBIAN.name, GAP)), strict=True)
    )


def together(seed: Seed) -> float:
    """The mean over runs of the rank correlation of the two Jacobian norms along them."""
    return stats.mean(
        stats.rank_correlation(of[JACOBIAN.name], of[run.PARAMETER_JACOBIAN.name])
        for of in seed.series.values()
    )


def before(seed: Seed) -> float:
    """The larger over the smaller mean Jacobian norm, of a step and the large rate, half-way."""
    until = seed.study.steps // 2 // seed.study.every + 1
    norms = [seed.series[SQUARED, each][JACOBIAN.name][:until][-1] for each in (STEP, LARGE)]
    return max(norms) / min(norms)
