"""Training with the Jacobian norm and sharpness on the curves of a free run, or moved off them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from lossgeom.estimate import Estimate
from lossgeom.lab.regularizers import JacobianNorm, NotPositiveError, WarmSharpness, hold
from lossgeom.lab.statistics import mean
from lossgeom.lab.studies._network import build_with_indicators, in_chunks
from lossgeom.lab.studies._solution import ACCURACY, LOSS, SHARPNESS, TEST, TRAIN, OfOutputs
from lossgeom.lab.studies._stages import append_missing
from lossgeom.lab.studies._study import SeedRun
from lossgeom.lab.studies._training import train
from lossgeom.lab.studies.jacobian_intervention.config import (
    ARMS,
    FOLDER,
    FREE,
    HELD_OFF,
    MOVED_OFF,
    Config,
)  # fmt: skip
from lossgeom.lab.training import OptimizerSettings, Quantity, optimize, ramp
from lossgeom.metrics import Accuracy, Loss, Metric, SobolevSeminorm
from lossgeom.problem import Problem
from lossgeom.recording.ended import last_values, series_of
from lossgeom.recording.folder import is_record
from lossgeom.recording.for_report import ForReport
from lossgeom.recording.record import Record
from lossgeom.recording.tracker import Tracker


@dataclass(frozen=True)
class SquaredJacobian:
    """A metric: the mean over examples of the squared Frobenius norm of the Jacobian."""

    name: str = "squared_jacobian_norm"

    def __call__(self, problem: Problem) -> Estimate:
        """Measure."""
        return Estimate(SobolevSeminorm()(problem).value ** 2)


JACOBIAN = SquaredJacobian()
TRAIN_LOSS, TEST_LOSS = (OfOutputs(examples + LOSS, Loss()) for examples in (TRAIN, TEST))
TEST_ACCURACY = OfOutputs(TEST + ACCURACY, Accuracy())
ON_TRAIN: tuple[Metric, ...] = (TRAIN_LOSS, JACOBIAN, SHARPNESS)
ON_TEST: tuple[Metric, ...] = (TEST_LOSS, TEST_ACCURACY)
GAP, TEST_ERROR = "gap", "test error"  # means, as those that follow
HELD = (JACOBIAN.name, SHARPNESS.name)  # in the order of the factors of an arm
MEAN = {name: f"mean {name}" for name in HELD}
OFF = {name: f"{name} off target" for name in HELD}

Curves = Mapping[str, tuple[Sequence[int], Sequence[float]]]  # by what is held, or may be


def run(run: SeedRun[Config], record: Record) -> None:
    """Train freely, for the curves, and then on them, or on multiples of them."""
    arm = run.place["arm"]
    factors = {k: f for k, f in zip(HELD, ARMS[arm], strict=True) if f is not None}
    curves: Curves = {}
    if factors:
        free = _free(run, record)
        if free.status == "diverged":
            record.describe(ForReport(left_out="the free run diverged, so there are no curves"))
            return record.finish("diverged")
        curves = {name: free.series(name) for name in HELD}
    try:
        ended = _train(run, record, curves, factors)
    except NotPositiveError as error:  # of data on which sharpness turns negative
        record.describe(ForReport(left_out=str(error)))
        return record.finish("diverged")
    at_end = (GAP, TEST_ERROR, *MEAN.values(), *(OFF.values() if factors else ()))
    record.describe(ForReport(planned_at_end=at_end))
    if ended == "finished":
        append_missing(record, run.study.steps, _ends(run.study, record, curves, factors))
    record.describe(ForReport(left_out=_left_out(record, factors) or None))
    return record.finish(ended)


def _free(run: SeedRun[Config], record: Record) -> Record:
    """The record of the free arm where that is over, or of the same run, trained here."""
    beside = record.path.with_name(FOLDER.format(arm=FREE, seed=run.seed))
    if is_record(beside) and (arm := Record.open(beside)).status in ("finished", "diverged"):
        return arm
    with Record.create(record.path / FREE, {**run.settings, "arm": FREE}, resume=True) as free:
        free.finish(_train(run, free, {}, {}))
    return free


def _train(
    run: SeedRun[Config], record: Record, curves: Curves, factors: Mapping[str, float]
) -> Literal["finished", "diverged"]:
    study, warm = run.study, WarmSharpness()
    quantities: dict[str, Quantity] = dict(zip(HELD, (JacobianNorm(), warm), strict=True))
    held = [
        hold(
            quantities[name], curves[name], strength=study.strength,
            factor=ramp(factor, study.steps // 2),
        )
        for name, factor in factors.items()
    ]  # fmt: skip
    model, data = build_with_indicators(study.network, run.seed)
    batches, held_out = (in_chunks(part, study.network.chunk) for part in (data.train, data.test))
    problem = Problem(model, "squared_error", batches, mode="train")
    edge = {SHARPNESS.name: 2 * (1 + study.momentum) / study.lr}
    trackers = (
        Tracker(problem, ON_TRAIN, record, study.every, edge),
        Tracker(
            Problem(model, "squared_error", held_out, mode="train"),
            ON_TEST, record, study.every,
        ),
    )  # fmt: skip
    record.update(data=data.scaling)
    optimizers = OptimizerSettings("momentum", study.lr, study.momentum).made_for(model)
    training = partial(
        optimize, model, "squared_error", batches, optimizers=optimizers, steps=study.steps,
        clip=study.clip, regularizers=held, seed=run.seed,
    )  # fmt: skip
    return train(
        model, record, training, steps=study.steps, every=study.every,
        at_step=lambda step: [tracker(step) for tracker in trackers],
        optimizers=optimizers, others=[warm],
    )  # fmt: skip


def _ends(
    study: Config, record: Record, curves: Curves, factors: Mapping[str, float]
) -> dict[str, float]:
    """Means over the last measurements, which oscillate, and how far they are off their targets.

    What is not held has the free run as its target.
    """
    means = {
        name: mean(values[-study.averaged :]) for name, values in series_of(record.rows()).items()
    }
    aims = {
        name: factors.get(name, 1.0) * mean(values[-study.averaged :])
        for name, (_, values) in curves.items()
    }
    return {
        GAP: means[TEST_LOSS.name] - means[TRAIN_LOSS.name],
        TEST_ERROR: 1 - means[TEST_ACCURACY.name],
        **{MEAN[name]: means[name] for name in HELD},
        **{OFF[name]: means[name] / aim - 1 for name, aim in aims.items()},
    }


def _left_out(record: Record, factors: Mapping[str, float]) -> str:
    """Say why a run that is over does not count; empty if it does."""
    if "diverged_at" in record.manifest:
        return f"diverged at step {record.manifest['diverged_at']}"
    ends = last_values(record)
    missed = [
        f"{name} is {off:+.0%}"
        for name, factor in factors.items()
        if abs(off := ends[OFF[name]]) > (HELD_OFF if factor == 1 else MOVED_OFF)
    ]
    return f"{' and '.join(missed)} off its target" if missed else ""
