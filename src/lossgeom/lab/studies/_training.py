"""Training that goes on where a run was stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

from torch import nn

from lossgeom.recording.for_report import ForReport
from lossgeom.recording.record import Record

SAVE_EVERY = 10  # measurements


def train(
    model: nn.Module,
    record: Record,
    training: Callable[..., Iterator[int]],
    *,
    steps: int,
    every: int,
    at_step: Callable[[int], object],
    reached: Callable[[int], bool] = lambda step: False,  # noqa: ARG005
) -> Literal["finished", "diverged"]:
    """Train a model in place from its record's checkpoint, and return how that ended.

    Args:
        model: what is trained.
        record: gets the checkpoints, and the steps that are planned.
        training: yields steps, when called with ``first``, the number of steps already taken.
        steps: where training ends; where it ends before, it has diverged.
        every: steps between measurements.
        at_step: called before the first step, after every step, and again for the steps since the
            checkpoint if the run was stopped.
        reached: says of a step whether it is the last one, and training ends there.
    """
    record.describe(ForReport(planned_steps=tuple(range(0, steps + 1, every))))
    checkpoint = record.load_arrays("checkpoint")
    first = 0
    if checkpoint is not None:
        state, facts = checkpoint
        model.load_state_dict(state)
        first = facts["step"]
    step = first
    for step in training(first=first):
        at_step(step)
        if reached(step):
            record.describe(ForReport(planned_steps=tuple(range(0, step + 1, every))))
            return "finished"
        if step % (SAVE_EVERY * every) == 0:
            record.save_arrays("checkpoint", model.state_dict(), step=step)
    if step < steps:
        record.update(diverged_at=step)
        return "diverged"
    return "finished"
