"""Training with SGD until the training set is interpolated."""

from __future__ import annotations

from functools import partial

from lossgeom.lab.studies._network import build_with_signs, in_chunks
from lossgeom.lab.studies._study import SeedRun
from lossgeom.lab.studies._training import train
from lossgeom.lab.studies.input_smoothness.config import Config
from lossgeom.lab.studies.input_smoothness.measures import AT_END, LOSS, TEST_LOSS
from lossgeom.lab.training import sgd
from lossgeom.problem import Problem
from lossgeom.recording.for_report import ForReport
from lossgeom.recording.record import Record
from lossgeom.recording.tracker import Tracker


def run(run: SeedRun[Config], record: Record) -> None:
    """Train until the training set is interpolated, and measure there."""
    study, steps, every = run.study, run.study.steps, run.study.every
    model, data = build_with_signs(study.network, run.seed)
    problem, held_out = (
        Problem(model, "squared_error", in_chunks(part, study.network.chunk))
        for part in (data.train, data.test)
    )
    losses = (
        Tracker(problem, [LOSS], record, every, {LOSS.name: study.interpolation}),
        Tracker(held_out, [TEST_LOSS], record, every),
    )
    at_end = Tracker(problem, AT_END, record)
    record.update(data=data.scaling)
    record.describe(ForReport(planned_at_end=tuple(metric.name for metric in AT_END)))

    def interpolates(step: int) -> bool:
        if step % every:
            return False
        values = dict(zip(*record.series(LOSS.name), strict=True))
        return bool(values[step] < study.interpolation)

    def at_step(step: int) -> None:
        for tracker in losses:
            tracker(step)
        if step == steps or interpolates(step):
            at_end(step)

    training = partial(
        sgd, model, "squared_error", data.train, **run.place, steps=steps, seed=run.seed
    )
    ended = train(
        model, record, training, steps=steps, every=every, at_step=at_step, reached=interpolates
    )
    record.describe(ForReport(left_out=left_out(record) or None))
    record.finish(ended)


def left_out(record: Record) -> str:
    """Say why a run that is over does not count as interpolating; empty if it does."""
    if "diverged_at" in record.manifest:
        return f"diverged at step {record.manifest['diverged_at']}"
    steps, losses = record.series(LOSS.name)
    limit = record.config["study"]["interpolation"]
    if losses[-1] < limit:
        return ""
    return f"loss {losses[-1]:.2g} after {steps[-1]} steps, not below {limit:g}"
