"""What the records say of the statements."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from functools import partial
from operator import truediv

import numpy as np

from lossgeom.lab import statistics as stats
from lossgeom.lab.studies._solution import JACOBIAN, SHARPNESS, SOFTMAX_JACOBIAN
from lossgeom.lab.studies._study import SeedRecords
from lossgeom.lab.studies.batch_norm.config import KINDS, Config
from lossgeom.lab.studies.batch_norm.run import BATCH_JACOBIAN, EVAL_SHARPNESS
from lossgeom.metrics import Metric
from lossgeom.recording.claim import Claim, Interval

PAPER_A = "MacDonald et al., arXiv:2305.14683, section 5 and appendix A.1"

# What each statement expects of its statistic, fixed before the seeds of the study were run.
TOGETHER: Interval = (0.7, math.inf)  # rank correlation
ABOVE: Interval = (1.1, math.inf)  # sharpness in eval mode over that in train mode
SAME: Interval = (0.95, 1.05)  # Jacobian norm in eval mode over that with statistics of batches
GROWS: Interval = (1.15, math.inf)  # late over early norm at the edge
GROWS_A_LITTLE: Interval = (1.05, math.inf)
HELD: Interval = (0.75, 1.25)  # median of sharpness * lr / 2 since it first was 1

PLAIN, PLAIN_EDGE, NORMED, NORMED_EDGE = KINDS
EDGE = "sharpness * lr / 2"

Seed = SeedRecords[Config]
Seeds = Sequence[Seed]
Values = dict[str, list[float]]  # of a run, by the metric
Found = dict[str, list[Values]]  # of a seed, by the kind of runs
of_seeds = partial(stats.claim_of_seeds, source=PAPER_A)
control_of_seeds = partial(stats.control, stats.claim_of_seeds)
over_seeds = partial(stats.claim_over_seeds, source=PAPER_A)
control = partial(stats.control, stats.claim_over_seeds)


def claims(config: Config, seeds: Seeds) -> Iterator[Claim]:
    """The verdicts."""
    found = [{kind: runs(seed, kind) for kind in KINDS} for seed in seeds]
    orders = [np.random.default_rng(seed.seed) for seed in seeds]
    yield from _together(config, found, orders)
    yield from _modes(found)
    yield from _at_the_edge(found)


def _together(
    config: Config, found: Sequence[Found], orders: Sequence[np.random.Generator]
) -> Iterator[Claim]:
    pair = "the Jacobian norm in eval mode and sharpness in train mode"
    below = f"at lr = {config.small_lr:g}, where 2 / lr is not reached"
    largest = f"rank correlation over label smoothings of the largest values of {pair} along a run"
    for kind, ending, which in ((PLAIN, "_plain", "Without"), (NORMED, "", "With")):
        yield of_seeds(
            f"along{ending}",
            statement=f"{which} batch normalisation, {pair} rise together in training.",
            of=f"rank correlation along a run of {pair}, mean over label smoothings, {below}",
            values=[along(seed[kind]) for seed in found],
            inside=TOGETHER,
        )
        yield of_seeds(
            f"over_runs{ending}",
            statement=f"{which} batch normalisation, {pair} go together over runs.",
            of=f"{largest}, {below}",
            values=[over(seed[kind]) for seed in found],
            inside=TOGETHER,
        )
    yield control_of_seeds(
        "along_at_edge",
        statement="they rise together where sharpness is held at 2 / lr.",
        of=f"rank correlation along a run of {pair} since the latter first was 2 / lr, mean over "
        "the runs that are held there",
        values=[along(held(seed[PLAIN_EDGE] + seed[NORMED_EDGE])) for seed in found],
        inside=TOGETHER,
    )
    yield control_of_seeds(
        "over_runs_shuffled",
        statement="with batch normalisation, the Jacobian norm goes with sharpness of other runs.",
        of=f"{largest}, those of sharpness in an order drawn by the seed, {below}",
        values=[over(seed[NORMED], order) for seed, order in zip(found, orders, strict=True)],
        inside=TOGETHER,
    )


def _modes(found: Sequence[Found]) -> Iterator[Claim]:
    at_edge = [[run for run in seed[NORMED_EDGE] if reached(run)] for seed in found]
    sharpness = [late(each, EVAL_SHARPNESS, SHARPNESS) for each in at_edge]
    jacobian = [late(each, JACOBIAN, BATCH_JACOBIAN) for each in at_edge]
    first = [
        min((min(map(truediv, run[J], run[B])) for run in each), default=math.nan)
        for each in at_edge
    ]
    of_sharpness = "sharpness in eval mode over that in train mode"
    of_jacobian = "mean Jacobian norm in eval mode over that with the statistics of all batches"
    second_half = "{}; median over the second half of training, of the runs that reach 2 / lr"
    for make, name, measured, values, expected, statement in (
        (over_seeds, "sharper_in_eval_mode", second_half.format(of_sharpness), sharpness, ABOVE,
         "With batch normalisation, sharpness in eval mode is above that in train mode."),
        (control, "jacobian_above", second_half.format(of_jacobian), jacobian, ABOVE,
         "the Jacobian norm in eval mode is above that in train mode by as much."),
        (over_seeds, "same_jacobian", second_half.format(of_jacobian), jacobian, SAME,
         "The Jacobian norm in eval mode becomes the same as that in train mode."),
        (control, "same_jacobian_at_first", f"{of_jacobian}; the smallest along a run", first, SAME,
         "it is the same from the beginning."),
    ):  # fmt: skip
        yield make(name, statement=statement, measured=measured, values=values, expected=expected)


def _at_the_edge(found: Sequence[Found]) -> Iterator[Claim]:
    quarters = (
        "median over the last quarter of the measurements since sharpness first was 2 / lr, over "
        "that over their first quarter;"
    )
    held_there = "of the runs without batch normalisation that are held there"
    grows = "The {} need not stop growing where sharpness is held at 2 / lr."
    softmax, logits = "softmax Jacobian norm", "Jacobian norm of the logits"
    for make, name, metric, measured, expected, statement in (
        (over_seeds, "softmax_grows", SOFTMAX_JACOBIAN,
         f"mean {softmax}: {quarters} the largest {held_there}", GROWS, grows.format(softmax)),
        (over_seeds, "logits_grow", JACOBIAN,
         f"mean {logits}: {quarters} the largest {held_there}", GROWS_A_LITTLE,
         grows.format(logits)),
        (control, "sharpness_grows", SHARPNESS,
         f"sharpness: {quarters} {held_there}, that in which the {softmax} grows most", GROWS,
         f"sharpness grows there as much, in the run in which the {softmax} grows most."),
    ):  # fmt: skip
        normed = [growth(held(seed[NORMED_EDGE]), metric) for seed in found]
        yield make(
            name,
            statement=statement,
            measured=measured,
            values=[growth(held(seed[PLAIN_EDGE]), metric) for seed in found],
            expected=expected,
            note=stats.means({"with batch normalisation": normed}),
        )


def summary(config: Config, found: Sequence[Claim]) -> str:
    """The result in a sentence or two."""
    by_id = {claim.id: statistics.median(claim.per_seed or [math.nan]) for claim in found}
    return (
        f"On {config.network.data} with full-batch gradient descent, {stats.counted(found)} With "
        f"batch normalisation, sharpness in eval mode is {by_id['sharper_in_eval_mode']:.2f} times "
        f"that in train mode, and the Jacobian norm {by_id['same_jacobian']:.2f} times. At the "
        f"edge of stability the softmax Jacobian norm grows by {by_id['softmax_grows'] - 1:.0%}."
    )


# The statistics of a seed

S, J, B = SHARPNESS.name, JACOBIAN.name, BATCH_JACOBIAN.name


def runs(seed: Seed, kind: str) -> list[Values]:
    """What is measured along the runs of all label smoothings, but for those that diverged."""
    rate = seed.study.rate(kind)
    return [
        {**seed.series[place], EDGE: [value * rate / 2 for value in seed.series[place][S]]}
        for place in ((kind, smoothing) for smoothing in seed.study.label_smoothing)
        if not seed.diverged(*place)
    ]


def reached(run: Values) -> int | None:
    """The first measurement at which sharpness is 2 / lr or more; ``None`` if there is none."""
    return next((i for i, ratio in enumerate(run[EDGE]) if i and ratio >= 1), None)


def held(runs: Sequence[Values]) -> list[Values]:
    """Those whose median sharpness is near 2 / lr since it first was there, from then on."""
    low, high = HELD
    found = [
        {name: values[first:] for name, values in run.items()}
        for run in runs
        if (first := reached(run)) is not None
    ]
    return [run for run in found if low <= statistics.median(run[EDGE]) <= high]


def along(runs: Sequence[Values]) -> float:
    """Mean rank correlation between Jacobian norm and sharpness along runs that have one."""
    return stats.mean(stats.known(stats.rank_correlation(run[J], run[S]) for run in runs))


def over(runs: Sequence[Values], order: np.random.Generator | None = None) -> float:
    """Rank correlation over runs of the largest values, those of sharpness in another order."""
    jacobian, sharpness = ([max(run[name]) for run in runs] for name in (J, S))
    if order is not None:
        sharpness = order.permutation(sharpness).tolist()
    return stats.rank_correlation(jacobian, sharpness)


def late(runs: Sequence[Values], above: Metric, below: Metric) -> float:
    """Median over the second half of training of a ratio; mean over runs."""

    def ratio(run: Values) -> float:
        half = -(-len(run[S]) // 2)
        ratios = map(truediv, run[above.name][-half:], run[below.name][-half:])
        return float(statistics.median(ratios))

    return stats.mean(ratio(run) for run in runs)


def growth(runs: Sequence[Values], metric: Metric) -> float:
    """Last quarter over first, the largest of runs; of sharpness, where the Jacobian's is."""

    def quarters(run: Values, name: str) -> float:
        n = max(1, len(run[name]) // 4)
        return statistics.median(run[name][-n:]) / statistics.median(run[name][:n])

    by = SOFTMAX_JACOBIAN if metric is SHARPNESS else metric
    most = max(runs, key=lambda run: quarters(run, by.name), default=None)
    return math.nan if most is None else quarters(most, metric.name)
