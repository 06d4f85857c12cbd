"""What the records say of the statements."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from functools import partial

from lossgeom.lab import statistics as stats
from lossgeom.lab.studies._study import SeedRecords
from lossgeom.lab.studies.edge_of_stability.config import Config
from lossgeom.lab.studies.edge_of_stability.optimizers import WITH_THRESHOLD
from lossgeom.lab.studies.edge_of_stability.run import (
    EDGE_RATIO,
    REALISED_EDGE,
    UPDATE_CURVATURE,
)
from lossgeom.metrics import Metric, StepMetric
from lossgeom.recording.claim import Claim, Interval
from lossgeom.recording.verdicts import verdict_of
from lossgeom.stability.verdict import HIGH, LOW

COHEN = "Cohen et al., arXiv:2103.00065"
ADAPTIVE = "Cohen et al., arXiv:2207.14484"
REALISED = "Lee and Lee (2026)"
SOURCES = {
    "gradient_descent": f"{COHEN}, figure 1",
    "heavy_ball": f"{COHEN}, section 2 and appendix B",
    "nesterov": f"{COHEN}, section 2 and appendix B",
    "rmsprop": ADAPTIVE,
    "adam": f"{ADAPTIVE}, figure 1",
}
NAMES = {
    "gradient_descent": "Gradient descent",
    "heavy_ball": "Heavy-ball momentum",
    "nesterov": "Nesterov momentum",
    "rmsprop": "RMSprop",
    "adam": "Adam",
}

# What each statement expects of its statistic, fixed before the seeds of the study were run.
AT_THE_EDGE: Interval = (LOW, HIGH)  # of the largest eigenvalue over the optimiser's threshold
ABOUT_ONE: Interval = (0.85, 1.2)  # realised edge
OSCILLATING = ("gradient_descent", "rmsprop", "adam")  # with momentum runs may converge
LAST_PART = 4  # a quarter of the measurements
WINDOW = (
    "median since the step from which on the run is at the edge by its verdict, or, of a run that "
    "is not, over the last quarter"
)
RATIO = f"largest eigenvalue over the threshold of the optimiser: {WINDOW}"

Seed = SeedRecords[Config]
Points = list[tuple[int, float]]


def claims(config: Config, seeds: Sequence[Seed]) -> Iterator[Claim]:
    """The verdicts."""
    for name in WITH_THRESHOLD:
        yield _at_its_threshold(name, seeds)
    yield _verdicts(seeds)
    for name in OSCILLATING:
        yield _realised(name, seeds)
    yield from _controls(config, seeds)


def _at_its_threshold(name: str, seeds: Sequence[Seed]) -> Claim:
    return stats.claim_over_seeds(
        f"threshold_{name}",
        statement=f"{NAMES[name]} is held at its own threshold.",
        source=SOURCES[name],
        measured=RATIO,
        values=[median_of(seed, name, EDGE_RATIO) for seed in seeds],
        expected=AT_THE_EDGE,
    )


def _verdicts(seeds: Sequence[Seed]) -> Claim:
    curvatures = " and ".join(
        f"{stats.mean_known(median_of(seed, name, UPDATE_CURVATURE) for seed in seeds)} for {said}"
        for name, said in (("muon", "Muon"), ("sign_descent", "sign descent"))
    )
    return stats.claim_of_runs(
        "verdict",
        statement="That is what the verdict on their runs says.",
        source="lossgeom.edge_verdict",
        measured="share of the runs of these optimisers whose verdict is 'at the edge'",
        values=[
            stats.mean(at_the_edge_since(seed, name) is not None for name in WITH_THRESHOLD)
            for seed in seeds
        ],
        runs=len(WITH_THRESHOLD),
        expected=stats.MOST,
        note="Of optimisers without a threshold it says nothing; the curvature along their updates "
        f"over the slope, whose edge is 2, has a median in the last quarter of {curvatures}.",
    )


def _realised(name: str, seeds: Sequence[Seed]) -> Claim:
    return stats.claim_over_seeds(
        f"realised_{name}",
        statement=f"{NAMES[name]} realises its edge: steps there hardly change the loss.",
        source=REALISED,
        measured=f"realised edge: {WINDOW}",
        values=[median_of(seed, name, REALISED_EDGE) for seed in seeds],
        expected=ABOUT_ONE,
    )


def _controls(config: Config, seeds: Sequence[Seed]) -> Iterator[Claim]:
    control = partial(stats.control, stats.claim_over_seeds)
    yield control(
        "small_lr",
        statement=f"gradient descent is held at its threshold at lr = {config.small_lr:g}, too.",
        measured=RATIO,
        values=[median_of(seed, "small_lr", EDGE_RATIO) for seed in seeds],
        expected=AT_THE_EDGE,
    )
    yield control(
        "realised_small_lr",
        statement=f"it realises its edge at lr = {config.small_lr:g}, too.",
        measured=f"realised edge: {WINDOW}",
        values=[median_of(seed, "small_lr", REALISED_EDGE) for seed in seeds],
        expected=ABOUT_ONE,
    )
    larger = 1 + config.heavy_ball_momentum  # its threshold than that of gradient descent
    yield control(
        "without_momentum",
        statement="heavy-ball momentum is held at the threshold of gradient descent.",
        measured=f"sharpness over 2 / lr: {WINDOW}",
        values=[larger * median_of(seed, "heavy_ball", EDGE_RATIO) for seed in seeds],
        expected=AT_THE_EDGE,
    )


def summary(config: Config, found: Sequence[Claim]) -> str:
    """The result in a sentence or two."""
    by_id = {claim.id: claim.statistic for claim in found}
    ratios = [by_id[f"threshold_{name}"] for name in WITH_THRESHOLD]
    return (
        f"On {config.network.data} with the full batch, {stats.counted(found)} From where they are "
        f"at the edge, the median over seeds of {len(ratios)} optimisers is {min(ratios):.2f} to "
        f"{max(ratios):.2f} of their own threshold, and {by_id['control_small_lr']:.2f} of "
        f"gradient descent at lr = {config.small_lr:g}."
    )


# The statistics of a seed


def series(seed: Seed, name: str, metric: Metric | StepMetric) -> Points:
    """Steps and values of a metric along a run, as far as they are finite."""
    steps, values = seed.at(name).series(metric.name)
    return [(s, value) for s, value in zip(steps, values, strict=True) if math.isfinite(value)]


def at_the_edge_since(seed: Seed, name: str) -> int | None:
    """The step since which a run is at the edge by its verdict; None where it is not there."""
    found = verdict_of(seed.at(name), full_batch=True)
    if found.kind != "at the edge":
        return None
    return 0 if found.since is None else found.since


def median_of(seed: Seed, name: str, metric: Metric | StepMetric) -> float:
    """The median of a metric while a run is at the edge, or in its last quarter.

    Infinite where it diverged, and NaN without values.
    """
    if seed.diverged(name):
        return math.inf
    found, since = series(seed, name, metric), at_the_edge_since(seed, name)
    part = found[-(len(found) // LAST_PART) :] if since is None else found
    values = [value for step, value in part if since is None or step >= since]
    return statistics.median(values) if values else math.nan
