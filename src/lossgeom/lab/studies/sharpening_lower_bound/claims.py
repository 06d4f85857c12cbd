"""What the records say of the statements."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence

import numpy as np

from lossgeom.lab import statistics as stats
from lossgeom.lab.studies._study import SeedRecords
from lossgeom.lab.studies.sharpening_lower_bound.config import Config
from lossgeom.lab.studies.sharpening_lower_bound.run import (
    BOUND,
    JACOBIAN,
    LOSS,
    WITHOUT_FIT,
    named,
)
from lossgeom.lab.studies.sharpening_lower_bound.task import IMAGES, INTERVAL
from lossgeom.recording.claim import Claim, Interval

PAPER_A = "MacDonald et al., arXiv:2305.14683"
THEOREM = f"{PAPER_A}, Theorem 5.1"

# What each statement expects of its statistic, fixed before the seeds of the study were run.
ABOVE: Interval = (0.0, math.inf)  # Jacobian norm - bound
RISES: Interval = (-math.inf, -0.8)  # rank correlation of bound and loss
SAYS_MUCH: Interval = (0.5, math.inf)  # bound / Jacobian norm
CONTRACTS: Interval = (0.75, 4 / 3)  # in units of 1 - a

Seed = SeedRecords[Config]


def claims(config: Config, seeds: Sequence[Seed]) -> Iterator[Claim]:
    """The verdicts."""
    yield from _along_training(config, seeds)
    yield from _smoothing(config, seeds)
    yield from _controls(config, seeds)


def _along_training(config: Config, seeds: Sequence[Seed]) -> Iterator[Claim]:
    yield stats.claim_of_all(
        "jacobian_above_bound",
        statement="All along training, the largest Jacobian norm is above the bound.",
        source=THEOREM,
        measured="the largest Jacobian norm at the points less the bound; the least over "
        "measurements, label smoothings and seeds",
        values=[margin(seed, INTERVAL, BOUND) for seed in seeds],
        expected=ABOVE,
    )
    yield stats.claim_of_seeds(
        "bound_rises_as_loss_falls",
        statement="The bound rises as the loss falls.",
        source=THEOREM,
        of="rank correlation along a run between bound and loss; mean over label smoothings",
        values=[falls_with_loss(seed) for seed in seeds],
        inside=RISES,
    )
    yield stats.claim_over_seeds(
        "bound_says_much",
        statement="At the end of training, the bound is a good part of the Jacobian norm.",
        source=THEOREM,
        measured="bound over the largest Jacobian norm at the end, the least over label smoothings",
        values=[float(np.min(shares(seed, INTERVAL))) for seed in seeds],
        expected=SAYS_MUCH,
        note=_by_level(config.label_smoothing, [shares(seed, INTERVAL) for seed in seeds]),
    )


def _smoothing(config: Config, seeds: Sequence[Seed]) -> Iterator[Claim]:
    for metric, name in ((BOUND, "bound"), (JACOBIAN, "Jacobian norm")):
        yield stats.claim_of_seeds(
            f"{metric}_contracts",
            statement=f"Label smoothing by a contracts the {name} at the end by about 1 - a.",
            source=THEOREM,
            measured=_contracted(f"{name} over 1 - a"),
            values=[farthest(contraction(seed, metric)) for seed in seeds],
            inside=CONTRACTS,
            note=_by_level(
                config.label_smoothing[1:], [contraction(seed, metric) for seed in seeds]
            ),
        )


def _contracted(what: str) -> str:
    low, high = CONTRACTS
    return (
        f"share of seeds in which the {what} is {low:g} to {high:g} times that without smoothing, "
        "for every a"
    )


def _by_level(levels: Sequence[float], found: Sequence[Sequence[float]]) -> str:
    return stats.means({f"a = {a:g}": [of[i] for of in found] for i, a in enumerate(levels)})


def _controls(config: Config, seeds: Sequence[Seed]) -> Iterator[Claim]:
    yield stats.control(
        stats.claim_of_all,
        "fit_left_out",
        statement="the Jacobian norm is above the bound of a perfect fit, too.",
        measured="the largest Jacobian norm at the points less the bound with ell = 0; the least "
        "over measurements, label smoothings and seeds",
        values=[margin(seed, INTERVAL, WITHOUT_FIT) for seed in seeds],
        expected=ABOVE,
    )
    yield stats.control(
        stats.claim_of_all,
        "variation_left_out",
        statement="on images, where no local variation is known that says anything, the Jacobian "
        "norm is above the bound without it.",
        measured="the largest Jacobian norm at the images less the bound with V = 0, which is no "
        "theorem; the least over measurements, label smoothings and seeds",
        values=[margin(seed, IMAGES, BOUND) for seed in seeds],
        expected=ABOVE,
        note="Of that bound over the norm at the end: "
        + _by_level(config.label_smoothing, [shares(seed, IMAGES) for seed in seeds]),
    )
    yield stats.control(
        stats.claim_of_seeds,
        "not_contracted",
        statement="label smoothing leaves the bound at the end as it is.",
        measured=_contracted("bound itself"),
        values=[farthest(contraction(seed, BOUND, expected=False)) for seed in seeds],
        inside=CONTRACTS,
    )


def summary(config: Config, found: Sequence[Claim]) -> str:
    """The result in a sentence or two."""
    middle = {claim.id: statistics.median(claim.per_seed or [math.nan]) for claim in found}
    verdicts = {claim.id: claim.verdict for claim in found}
    return (
        f"With {config.points} points of an interval, {stats.counted(found)} Whatever fits so well "
        "has a Jacobian norm above the bound, with probability 0.95 over the points. It ends at "
        f"{middle['bound_says_much']:.2f} or more of the norm of the network that was trained. "
        "That label smoothing by a contracts it by about 1 - a is "
        f"{verdicts['bound_contracts']}."
    )


# Statistics of a seed


def series(seed: Seed, task: str, smoothing: float, metric: str) -> list[float]:
    """A metric along a run."""
    return seed.at(task, smoothing).series(named(metric, task))[1]


def ends(seed: Seed, metric: str, task: str = INTERVAL) -> list[float]:
    """The last value of a metric for each label smoothing; NaN where a run diverged."""
    return [
        math.nan if seed.diverged(task, a) else series(seed, task, a, metric)[-1]
        for a in seed.study.label_smoothing
    ]


def margin(seed: Seed, task: str, bound: str) -> float:
    """The least of Jacobian norm less bound, over the runs of a task."""
    return min(
        norm - least
        for a in seed.study.label_smoothing
        for norm, least in zip(
            series(seed, task, a, JACOBIAN), series(seed, task, a, bound), strict=True
        )
    )


def falls_with_loss(seed: Seed) -> float:
    """The mean rank correlation along runs on the interval between bound and loss."""
    return stats.mean(
        stats.rank_correlation(*(series(seed, INTERVAL, a, m) for m in (BOUND, LOSS)))
        for a in seed.study.label_smoothing
    )


def shares(seed: Seed, task: str) -> list[float]:
    """The bound over the Jacobian norm at the end for each label smoothing."""
    bounds, norms = (ends(seed, metric, task) for metric in (BOUND, JACOBIAN))
    return [bound / norm for bound, norm in zip(bounds, norms, strict=True)]


def contraction(seed: Seed, metric: str, expected: bool = True) -> list[float]:
    """A metric at the end by that without smoothing, and by the expected 1 - a, for each a > 0."""
    first, *others = ends(seed, metric)
    levels = seed.study.label_smoothing[1:]
    return [
        value / first / (1 - a if expected else 1) for a, value in zip(levels, others, strict=True)
    ]


def farthest(ratios: Sequence[float]) -> float:
    """The ratio that is farthest from 1; NaN if one is unknown."""
    apart = np.abs(np.log(np.maximum(ratios, math.ulp(0))))
    return ratios[int(apart.argmax())]  # which is that of a NaN
