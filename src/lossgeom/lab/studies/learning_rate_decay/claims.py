"""What the records say of the statements."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial

from lossgeom.claim import Claim, Interval
from lossgeom.lab import statistics as stats
from lossgeom.lab.studies._solution import GAP, JACOBIAN, JACOBIAN_MAX
from lossgeom.lab.studies._study import SeedRecords
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
from lossgeom.lab.studies.learning_rate_decay.run import (
    G_X,
    PARAMETER_JACOBIAN,
    PROMISED_G_X,
    PROMISED_TRACE,
    TRACE,
)
from lossgeom.recording.ended import last_values

PAPER_A = "MacDonald et al., arXiv:2305.14683, appendix D"
LEE = "Lee et al. (implicit Jacobian regularisation), after MacDonald et al., appendix D"
OURS = "derived here"
PAPER_B = "Ma and Ying, arXiv:2105.13462, and Mulayoff and Michaeli, arXiv:2306.07850"

# What each statement expects of its statistic, fixed before the seeds of the study were run.
LOWER: Interval = (0.0, 1.0)  # ratio
MOST_OF_IT: Interval = (0.5, math.inf)  # share of what the large rate gains
RISES_TOGETHER: Interval = (0.9, math.inf)  # rank correlation along a run
AGREES: Interval = (0.8, math.inf)  # share of pairs
TELLS: Interval = (1.1, math.inf)  # ratio of the larger to the smaller
HOLDS: Interval = (-math.inf, 1.0)  # left side over right side

Seed = SeedRecords[Config]
Ends = dict[tuple[str, str], dict[str, float]]  # the last of every metric
OVER_SMALL = (
    "of runs whose rate decays, over that at the small constant rate, geometric mean of both"
)


def claims(_: Config, seeds: Sequence[Seed]) -> Iterator[Claim]:
    """The verdicts."""
    ends = [ends_of(seed) for seed in seeds]
    yield from _better(ends)
    yield _together(seeds)
    yield from _without_weight_decay(ends)
    yield _agree(ends)
    yield from _bounds(ends)
    yield from _controls(seeds, ends)


def _better(ends: Sequence[Ends]) -> Iterator[Claim]:
    lower = partial(stats.claim_over_seeds, expected=LOWER)
    yield lower(
        "generalises_better",
        statement="A large learning rate that decays generalises better than a small constant one.",
        source=PAPER_A,
        measured=f"gap {OVER_SMALL}",
        values=[ratio(each, GAP, WITH) for each in ends],
    )
    yield lower(
        "smaller_jacobian",
        statement="It ends with a smaller Jacobian norm in the input.",
        source=PAPER_A,
        measured=f"mean Jacobian norm {OVER_SMALL}",
        values=[ratio(each, JACOBIAN.name, WITH) for each in ends],
        note=stats.means({"the largest one": [ratio(e, JACOBIAN_MAX.name, WITH) for e in ends]}),
    )
    yield lower(
        "smaller_parameter_jacobian",
        statement="It ends with a smaller Jacobian norm in the parameters.",
        source=LEE,
        measured=f"mean Jacobian norm in the parameters {OVER_SMALL}",
        values=[ratio(each, PARAMETER_JACOBIAN.name, WITH) for each in ends],
    )
    yield stats.claim_of_seeds(
        "keeps_the_gain",
        statement="It keeps most of what the large learning rate gains.",
        source=OURS,
        of="logarithm of the gap's ratio to that at the small constant rate, over the same of the "
        "large constant rate; of a seed in which this one gains",
        values=[kept(each, WITH) for each in ends],
        inside=MOST_OF_IT,
    )


def _together(seeds: Sequence[Seed]) -> Claim:
    return stats.claim_of_seeds(
        "jacobians_go_together",
        statement="The Jacobian norms in the input and in the parameters go together in training.",
        source=LEE,
        of="rank correlation along a run of the mean Jacobian norms in the input and in the "
        "parameters; mean over runs",
        values=[together(seed) for seed in seeds],
        inside=RISES_TOGETHER,
    )


def _without_weight_decay(ends: Sequence[Ends]) -> Iterator[Claim]:
    lower = partial(stats.claim_over_seeds, source=PAPER_A, expected=LOWER)
    yield lower(
        "generalises_better_without_weight_decay",
        statement="It generalises better without weight decay, too.",
        measured=f"gap {OVER_SMALL}",
        values=[ratio(each, GAP, WITHOUT) for each in ends],
    )
    yield lower(
        "smaller_jacobian_without_weight_decay",
        statement="It ends with a smaller Jacobian norm without weight decay, too.",
        measured=f"mean Jacobian norm {OVER_SMALL}",
        values=[ratio(each, JACOBIAN.name, WITHOUT) for each in ends],
    )


def _agree(ends: Sequence[Ends]) -> Claim:
    return stats.claim_of_seeds(
        "jacobian_tells_which_is_better",
        statement="Of a decaying and a small constant rate, that with the smaller Jacobian norm "
        "has the smaller gap.",
        source=PAPER_A,
        of="share of pairs, with and without weight decay and of the squared error, in which that "
        "is so",
        values=[agreement(each) for each in ends],
        inside=AGREES,
    )


def _bounds(ends: Sequence[Ends]) -> Iterator[Claim]:
    yield stats.claim_of_seeds(
        "largest_jacobian_sees_the_decay",
        statement="The Jacobian norm in the bound of theorem 6.1 tells a decaying from a small "
        "constant rate.",
        source="MacDonald et al., arXiv:2305.14683, theorem 6.1",
        of="largest Jacobian norm with the squared error, that of runs whose rate decays over that "
        "at the small constant rate or the other way round, whichever is above 1",
        values=[apart(each, JACOBIAN_MAX.name) for each in ends],
        inside=TELLS,
        note=stats.means({"of g_x": [apart(each, G_X) for each in ends]}),
    )
    for name, measured, promised, what in (
        ("trace", TRACE, PROMISED_TRACE, "the trace of the Gauss-Newton matrix"),
        ("input_gradients", G_X, PROMISED_G_X, "g_x"),
    ):
        ratios = [[end[measured] / end[promised] for end in of_squared(each)] for each in ends]
        yield stats.claim_of_all(
            f"{name}_as_promised",
            statement=f"What the learning rate at the end promises of {what} holds.",
            source=PAPER_B,
            measured=f"{what} over what is promised, the largest over the runs of a seed with the "
            "squared error",
            values=[max(each, default=math.nan) for each in ratios],
            expected=HOLDS,
        )


def _controls(seeds: Sequence[Seed], ends: Sequence[Ends]) -> Iterator[Claim]:
    yield stats.control(
        stats.claim_of_seeds,
        "settings_see_the_decay",
        statement="what the learning rate at the end promises of the trace tells a decaying from a "
        "small constant rate, too.",
        of="promised trace, the larger of both over the smaller, as above",
        values=[apart(each, PROMISED_TRACE) for each in ends],
        inside=TELLS,
        note=stats.means(
            {
                "of promised g_x, with the measured first layer": [
                    apart(each, PROMISED_G_X) for each in ends
                ]
            }
        ),
    )
    yield stats.control(
        stats.claim_of_seeds,
        "before_the_decay",
        statement="the Jacobian norm tells a rate that will decay from one that will not.",
        of="mean Jacobian norm with the squared error before the step of the rate, the larger of "
        "that with a step and that at the large constant rate over the smaller",
        values=[before(seed) for seed in seeds],
        inside=TELLS,
    )


def summary(config: Config, found: Sequence[Claim]) -> str:
    """The result in a sentence or two."""
    by_id = {claim.id: claim for claim in found}
    return (
        f"On {config.network.data} with a learning rate of {config.lr:g} that falls to "
        f"{config.lr * config.decay:g}, {stats.counted(found)} The gap is "
        f"{by_id['generalises_better'].statistic:.2f} of that at the small constant rate, and "
        f"{by_id['generalises_better_without_weight_decay'].statistic:.2f} without weight decay."
    )


# The statistics of a seed


def ends_of(seed: Seed) -> Ends:
    """What its runs end with, of those that do not diverge."""
    return {
        place: last_values(record)
        for place, record in seed.records.items()
        if not seed.diverged(*place)
    }


def logs(
    ends: Ends, metric: str, objective: str, schedules: Sequence[str] = DECAYED
) -> list[float]:
    """The logarithms of a metric's ratios to that at the small constant rate."""
    small = ends.get((objective, SMALL), {}).get(metric, math.nan)
    runs = (ends.get((objective, schedule), {}).get(metric, math.nan) for schedule in schedules)
    return [math.log(value / small) for value in runs]


def ratio(ends: Ends, metric: str, objective: str) -> float:
    """The geometric mean of a metric's ratios to that at the small constant rate."""
    return math.exp(stats.mean(logs(ends, metric, objective)))


def apart(ends: Ends, metric: str) -> float:
    """The same with the squared error, or its inverse, whichever is above 1."""
    return math.exp(abs(stats.mean(logs(ends, metric, SQUARED))))


def kept(ends: Ends, objective: str) -> float:
    """The share of what the large rate gains that is left; NaN where it gains nothing."""
    gained = logs(ends, GAP, objective, [LARGE])[0]
    return stats.mean(logs(ends, GAP, objective)) / gained if gained < 0 else math.nan


def agreement(ends: Ends) -> float:
    """The share of pairs in which the smaller Jacobian norm has the smaller gap."""
    pairs = [
        jacobian * gap
        for objective in OBJECTIVES
        for jacobian, gap in zip(
            logs(ends, JACOBIAN.name, objective), logs(ends, GAP, objective), strict=True
        )
    ]
    return stats.mean(product > 0 for product in stats.known(pairs))


def together(seed: Seed) -> float:
    """The mean over runs of the rank correlation of the two Jacobian norms along them."""
    return stats.mean(
        stats.rank_correlation(
            *(record.series(each.name)[1] for each in (JACOBIAN, PARAMETER_JACOBIAN))
        )
        for place, record in seed.records.items()
        if not seed.diverged(*place)
    )


def of_squared(ends: Ends) -> list[dict[str, float]]:
    """Runs with the squared error of which all is measured that is promised."""
    return [end for place, end in ends.items() if place[0] == SQUARED and TRACE in end]


def before(seed: Seed) -> float:
    """The larger over the smaller mean Jacobian norm, half-way, of the step and the large rate."""
    half, last = seed.study.steps // 2, []
    for schedule in (STEP, LARGE):
        steps, values = seed.at(SQUARED, schedule).series(JACOBIAN.name)
        last.append(dict(zip(steps, values, strict=True))[max(s for s in steps if s <= half)])
    return max(last) / min(last)
