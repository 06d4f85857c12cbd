"""What the records say of the statements."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterator, Sequence
from functools import partial

from lossgeom.lab import statistics as stats
from lossgeom.lab.studies._study import SeedRecords
from lossgeom.lab.studies.progressive_sharpening.config import Config
from lossgeom.lab.studies.progressive_sharpening.run import JACOBIAN, SHARPNESS
from lossgeom.metrics import Metric
from lossgeom.recording.claim import Claim, Interval

PAPER_A = "MacDonald et al., arXiv:2305.14683, figure 1"
COHEN = "Cohen et al., arXiv:2103.00065, figure 1"

# What each statement expects of its statistic, fixed before the seeds of the study were run.
FALLS: Interval = (-math.inf, -0.9)  # rank correlation with the smoothing
RISES_TOGETHER: Interval = (0.9, math.inf)  # rank correlation along a run
NEAR_THE_EDGE: Interval = (0.75, 1.25)  # sharpness * lr / 2
MOSTLY: Interval = (0.7, math.inf)  # share of measurements

Seed = SeedRecords[Config]
Place = tuple[float, float]  # learning rate and label smoothing


def claims(config: Config, seeds: Sequence[Seed]) -> Iterator[Claim]:
    """The verdicts."""
    yield from _smoothing(config, seeds)
    yield from _edge(config, seeds)
    yield _rise_together(seeds)
    yield from _controls(config, seeds)


def _smoothing(config: Config, seeds: Sequence[Seed]) -> Iterator[Claim]:
    correlation = "rank correlation over its runs between label smoothing and the largest"
    falls = partial(stats.claim_of_seeds, source=PAPER_A, inside=FALLS)
    yield falls(
        "jacobian_falls_with_smoothing",
        statement="More label smoothing gives a smaller maximum Jacobian norm of the softmaxed "
        "model.",
        of=f"{correlation} softmax Jacobian norm of the run, at lr = {config.lr:g}",
        values=[falls_with_smoothing(seed, config.lr, JACOBIAN) for seed in seeds],
    )
    yield falls(
        "sharpness_falls_with_smoothing",
        statement="More label smoothing gives a smaller maximum sharpness where the edge of "
        "stability is not reached.",
        of=f"{correlation} sharpness of the run, at lr = {config.small_lr:g}",
        values=[sharpness_falls_with_smoothing(seed) for seed in seeds],
    )


def _edge(config: Config, seeds: Sequence[Seed]) -> Iterator[Claim]:
    edge = 2 / config.lr
    unheld = stats.mean(at_the_edge(seed, config.small_lr, edge) for seed in seeds)
    yield stats.claim_over_seeds(
        "arrested_at_the_edge",
        statement="At the large learning rate, the runs that would sharpen beyond 2 / lr are "
        "held near it.",
        source=COHEN,
        measured=_held(config),
        values=[at_the_edge(seed, config.lr, edge) for seed in seeds],
        expected=NEAR_THE_EDGE,
        note=stats.note(
            f"At lr = {config.small_lr:g}, which does not hold them, the same runs are at "
            f"{{:.2f}} times {edge:g} in that time.",
            unheld,
        ),
    )
    yield stats.claim_of_seeds(
        "stays_at_the_edge",
        statement="Sharpness that has reached 2 / lr stays near it to the end of training.",
        source=COHEN,
        of=_stays(config, config.lr),
        values=[stays(seed, config.lr) for seed in seeds],
        inside=MOSTLY,
    )


def _held(config: Config) -> str:
    edge = 2 / config.lr
    return (
        "sharpness * lr / 2: its median over the training time lr * step in which the run at "
        f"lr = {config.small_lr:g} is beyond {edge:g}, averaged over the smoothings for which that "
        f"run's own median is then beyond {NEAR_THE_EDGE[1]:g} times {edge:g}"
    )


def _stays(config: Config, lr: float) -> str:
    return (
        f"share of the measurements, since sharpness first is {2 / config.lr:g} or more, at which "
        f"it is {NEAR_THE_EDGE[0]:g} to {NEAR_THE_EDGE[1]:g} times that; over the runs of a seed "
        f"that get there, at lr = {lr:g}"
    )


def _rise_together(seeds: Sequence[Seed]) -> Claim:
    whole = stats.mean(rise_together(seed, whole=True) for seed in seeds)
    return stats.claim_of_seeds(
        "rise_together",
        statement="Before the edge of stability, Jacobian norm and sharpness rise together.",
        source=PAPER_A,
        of="rank correlation along a run between the largest softmax Jacobian norm and sharpness "
        "until it reaches 2 / lr; mean over the runs of a seed that reach it",
        values=[rise_together(seed) for seed in seeds],
        inside=RISES_TOGETHER,
        note=stats.note("Over the whole of all runs it is {:.2f}.", whole),
    )


def _controls(config: Config, seeds: Sequence[Seed]) -> Iterator[Claim]:
    small = config.small_lr
    yield stats.control(
        stats.claim_over_seeds,
        "small_learning_rate",
        statement="the same runs are held near 2 / lr at the small learning rate, too.",
        measured=_held(config),
        values=[at_the_edge(seed, small, 2 / small) for seed in seeds],
        expected=NEAR_THE_EDGE,
    )
    yield stats.control(
        stats.claim_of_seeds,
        "stays_at_small_lr",
        statement=f"sharpness that has reached {2 / config.lr:g} stays near it at the small "
        "learning rate, too.",
        of=_stays(config, small),
        values=[stays(seed, small) for seed in seeds],
        inside=MOSTLY,
    )


def summary(config: Config, found: Sequence[Claim]) -> str:
    """The result in a sentence or two."""
    edge = next(claim for claim in found if claim.id == "arrested_at_the_edge")
    return (
        f"On {config.network.data} with full-batch gradient descent, {stats.counted(found)} While "
        f"runs at lr = {config.small_lr:g} are beyond {2 / config.lr:g}, the edge of stability "
        f"2/lr for lr = {config.lr:g}, the median sharpness of runs at that learning rate is "
        f"{edge.statistic:.2f} times it."
    )


# The statistics of a seed


def series(seed: Seed, place: Place, metric: Metric) -> tuple[list[int], list[float]]:
    """Steps and values of a metric along a run, as far as they are finite."""
    steps, values = seed.at(*place).series(metric.name)
    finite = list(itertools.takewhile(math.isfinite, values))
    return steps[: len(finite)], finite


def falls_with_smoothing(seed: Seed, lr: float, metric: Metric) -> float:
    """Rank correlation over the runs between smoothing and the peak of a metric."""
    levels = seed.study.label_smoothing
    return stats.rank_correlation(levels, [peak(seed, (lr, a), metric) for a in levels])


def peak(seed: Seed, place: Place, metric: Metric) -> float:
    """The largest value along a run; infinite if it diverged."""
    _, values = series(seed, place, metric)
    return math.inf if seed.diverged(*place) else max(values)


def sharpness_falls_with_smoothing(seed: Seed) -> float:
    """The same for sharpness at the small learning rate; NaN if a run reaches its edge there."""
    small = seed.study.small_lr
    peaks = [peak(seed, (small, a), SHARPNESS) for a in seed.study.label_smoothing]
    return math.nan if max(peaks) >= 2 / small else falls_with_smoothing(seed, small, SHARPNESS)


def during(seed: Seed, lr: float, smoothing: float) -> float:
    """Median sharpness of a run while that at the small learning rate is beyond 2 / config.lr.

    That is, from the first to the last such training time lr * step. NaN where it never is,
    infinite where the run at ``lr`` diverged.
    """
    small, edge = seed.study.small_lr, 2 / seed.study.lr
    free = zip(*series(seed, (small, smoothing), SHARPNESS), strict=True)
    beyond = [small * step for step, value in free if value > edge]
    if not beyond:
        return math.nan
    if seed.diverged(lr, smoothing):
        return math.inf
    held = zip(*series(seed, (lr, smoothing), SHARPNESS), strict=True)
    values = [value for step, value in held if beyond[0] <= lr * step <= beyond[-1]]
    return statistics.median(values) if values else math.nan


def at_the_edge(seed: Seed, lr: float, edge: float) -> float:
    """Sharpness in units of ``edge`` while nothing would keep it below 2 / config.lr.

    Mean over the smoothings for which the small learning rate, with nothing to hold it, is itself
    out of the range that counts as near 2 / config.lr.
    """
    small, far = seed.study.small_lr, NEAR_THE_EDGE[1] * 2 / seed.study.lr
    free_runs = [a for a in seed.study.label_smoothing if during(seed, small, a) > far]
    return stats.mean(during(seed, lr, a) / edge for a in free_runs)


def stays(seed: Seed, lr: float) -> float:
    """The share of measurements near 2 / config.lr since sharpness first was there.

    Over all runs at ``lr`` that get there; 0 if one of them diverges.
    """
    low, high = NEAR_THE_EDGE
    found: list[bool] = []
    for smoothing in seed.study.label_smoothing:
        if seed.diverged(lr, smoothing):
            return 0.0
        _, values = series(seed, (lr, smoothing), SHARPNESS)
        ratios = [value * seed.study.lr / 2 for value in values]
        since = itertools.dropwhile(lambda ratio: ratio < 1, ratios)
        found += [low <= ratio <= high for ratio in since]
    return stats.mean(found)


def rise_together(seed: Seed, whole: bool = False) -> float:
    """Mean over runs of the rank correlation between Jacobian norm and sharpness.

    Over the runs that reach 2 / lr after five or more measurements, up to that; or over all of the
    ``whole`` runs.
    """
    correlations = []
    for place in seed.records:
        _, sharpness = series(seed, place, SHARPNESS)
        _, jacobian = series(seed, place, JACOBIAN)
        reached = [i for i, value in enumerate(sharpness) if value >= 2 / place[0]]
        if whole:
            correlations.append(stats.rank_correlation(jacobian, sharpness))
        elif reached and reached[0] >= 4:
            before = slice(reached[0] + 1)
            correlations.append(stats.rank_correlation(jacobian[before], sharpness[before]))
    return stats.mean(correlations)
