"""Training that goes on where a run was stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from torch import nn
from torch.optim import Optimizer

from lossgeom.lab.studies._checkpoint import Stateful, arrays_of, restore
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
    at_step: Callable[[int], object] = lambda step: None,  # noqa: ARG005
    at_end: bool = True,
    optimizers: Sequence[Optimizer] = (),
    others: Sequence[Stateful] = (),
    reached: Callable[[int], bool] = lambda step: False,  # noqa: ARG005
    diverged: Callable[[int], bool] = lambda step: False,  # noqa: ARG005
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
        at_end: whether it is measured after the last step, too.
        optimizers: what it is trained with, where they have a state; it goes into the checkpoints.
        others: what else has a state, such as quantities that are held, or what metrics keep.
        reached: says of a step whether it is the last one, and training ends there.
        diverged: says of a step whether training has diverged there, and ends; see ``STOP_RULES``.
    """
    record.describe(ForReport(planned_steps=tuple(range(0, steps + at_end, every))))
    checkpoint = record.load_arrays("checkpoint")
    first = 0
    if checkpoint is not None:
        state, facts = checkpoint
        restore(model, optimizers, state, others)
        first = facts["step"]
    step = first
    for step in training(first=first):
        last = step == steps
        if last and step > first:  # what is measured there may take long
            record.save_arrays("checkpoint", arrays_of(model, optimizers, others), step=step)
        at_step(step)
        if reached(step):
            record.describe(ForReport(planned_steps=tuple(range(0, step + 1, every))))
            return "finished"
        if diverged(step):
            break
        if step % (SAVE_EVERY * every) == 0 and not last:
            record.save_arrays("checkpoint", arrays_of(model, optimizers, others), step=step)
    else:
        if step == steps:
            return "finished"
    record.update(diverged_at=step)
    return "diverged"
