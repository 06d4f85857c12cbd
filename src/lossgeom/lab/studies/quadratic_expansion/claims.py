"""What the records say of the statements."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from functools import partial

from lossgeom.lab import statistics as stats
from lossgeom.lab.studies._study import SeedRecords
from lossgeom.lab.studies.quadratic_expansion.config import Config
from lossgeom.recording.claim import Claim, Interval

AGARWALA = "Agarwala et al., arXiv:2210.04860, abstract"
OURS = "this study"

# What each statement expects of its statistic, fixed before the seeds of the study were run.
AT_THE_EDGE: Interval = (0.9, 1.1)  # eigenvalue * lr / 2
RIGHT = 0.1  # relative error of a model that is right
RIGHT_THERE: Interval = (-math.inf, RIGHT)
FURTHER: Interval = (1.25, math.inf)  # times as far
APART: Interval = (0.3, math.inf)  # relative error

Seed = SeedRecords[Config]


def claims(config: Config, seeds: Sequence[Seed]) -> list[Claim]:
    """The verdicts."""
    return [*_at_the_edge(config, seeds), *_errors(seeds), *_controls(config, seeds)]


def _at_the_edge(config: Config, seeds: Sequence[Seed]) -> Iterator[Claim]:
    measured = _eigenvalue(config.lr)
    claim = partial(
        stats.claim_over_seeds, source=AGARWALA, expected=AT_THE_EDGE, measured=measured
    )
    yield claim(
        "network_at_the_edge",
        statement="The network sharpens to the edge of stability and stays near it.",
        values=[at_the_edge(seed, config.lr, "network") for seed in seeds],
    )
    yield claim(
        "quadratic_at_the_edge",
        statement="So does its quadratic model.",
        values=[at_the_edge(seed, config.lr, "quadratic") for seed in seeds],
    )


def _eigenvalue(lr: float) -> str:
    return f"eigenvalue * lr / 2 at lr = {lr:g}, its median over the second half of the run"


ERROR = "relative error of the model where the network is first measured at 2 / lr"


def _errors(seeds: Sequence[Seed]) -> Iterator[Claim]:
    claim = partial(stats.claim_over_seeds, source=OURS)
    linear = stats.mean(errors(seed, "linear")[-1] for seed in seeds)
    yield claim(
        "quadratic_right_until_the_edge",
        statement="The quadratic model is right until the network is at the edge.",
        measured=ERROR,
        values=[error_at_the_edge(seed, "quadratic") for seed in seeds],
        expected=RIGHT_THERE,
    )
    yield claim(
        "quadratic_reaches_further",
        statement="It is right at least a quarter further than the linear model.",
        measured="distance at which the relative error is first measured above "
        f"{RIGHT:g}, over that of the linear model",
        values=[reach(seed, "quadratic") / reach(seed, "linear") for seed in seeds],
        expected=FURTHER,
    )
    yield claim(
        "quadratic_departs_later",
        statement="In the end the network has left its quadratic model.",
        measured="relative error of the quadratic model at the last step",
        values=[errors(seed, "quadratic")[-1] for seed in seeds],
        expected=APART,
        note=stats.note("That of the linear model is {:.2f}.", linear),
    )


def _controls(config: Config, seeds: Sequence[Seed]) -> Iterator[Claim]:
    claim = partial(stats.control, stats.claim_over_seeds)
    edge = partial(claim, expected=AT_THE_EDGE)
    yield edge(
        "linear_at_the_edge",
        statement="so does its linear model, whose eigenvalue is constant.",
        measured=_eigenvalue(config.lr),
        values=[at_the_edge(seed, config.lr, "linear") for seed in seeds],
    )
    yield edge(
        "network_at_small_lr",
        statement="the network is at 2 / lr at the small learning rate, too.",
        measured=_eigenvalue(config.small_lr),
        values=[at_the_edge(seed, config.small_lr, "network") for seed in seeds],
    )
    yield claim(
        "linear_right_until_the_edge",
        statement="the linear model is right until the network is there.",
        measured=ERROR,
        values=[error_at_the_edge(seed, "linear") for seed in seeds],
        expected=RIGHT_THERE,
    )


def summary(config: Config, found: Sequence[Claim]) -> str:
    """The result in a sentence or two."""
    by_id = {claim.id: claim for claim in found}

    def said(name: str) -> str:
        return f"{by_id[name].statistic:.2f} ({by_id[name].verdict})"

    return (
        f"On two classes of {config.data}, the eigenvalue in the second half of the run is "
        f"{said('network_at_the_edge')} times 2 / lr for the network, "
        f"{said('quadratic_at_the_edge')} for its quadratic and "
        f"{by_id['control_linear_at_the_edge'].statistic:.2f} for its linear model. The relative "
        f"error of the quadratic model is {said('quadratic_right_until_the_edge')} where the "
        f"network comes to the edge and {said('quadratic_departs_later')} in the end."
    )


# The statistics of a seed


def at_the_edge(seed: Seed, lr: float, model: str) -> float:
    """The median of eigenvalue * lr / 2 over the second half; infinite for divergence."""
    if seed.diverged(lr, model):
        return math.inf
    _, values = seed.at(lr, model).series("ntk")
    return statistics.median(values[len(values) // 2 :]) * lr / 2


def error_at_the_edge(seed: Seed, model: str) -> float:
    """The error of a model where the network first is at 2 / lr; NaN if it never is."""
    lr = seed.study.lr
    _, eigenvalues = seed.at(lr, "network").series("ntk")
    along = zip(eigenvalues, errors(seed, model), strict=True)
    return next((error for value, error in along if value >= 2 / lr), math.nan)


def errors(seed: Seed, model: str) -> list[float]:
    """The errors of a model along the path of the network at the large learning rate."""
    return seed.at(seed.study.lr, model).series("taylor_error")[1]


def reach(seed: Seed, model: str) -> float:
    """How far from the start the network is when the model stops being right; NaN if never."""
    _, distances = seed.at(seed.study.lr, model).series("distance")
    along = zip(distances, errors(seed, model), strict=True)
    return next((distance for distance, error in along if error > RIGHT), math.nan)
