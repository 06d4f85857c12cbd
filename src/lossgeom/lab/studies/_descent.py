"""Training that goes on where a run was stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

from torch import nn

from lossgeom.lab.training import gradient_descent
from lossgeom.problem import Problem
from lossgeom.recording.record import Record


def never(step: int) -> bool:  # noqa: ARG001
    """No goal but the last step."""
    return False


def descend(
    problem: Problem,
    record: Record,
    *,
    lr: float,
    steps: int,
    save_every: int,
    at_step: Callable[[int], object],
) -> None:
    """Train a problem's model in place with gradient descent, and say how that ended.

    As :func:`go_on` does.
    """

    def training(first: int) -> Iterator[int]:
        return gradient_descent(
            problem.model, problem.criterion, problem.batches, lr=lr, steps=steps, first=first
        )

    ended = go_on(
        problem.model, record, training, steps=steps, save_every=save_every, at_step=at_step
    )
    record.finish(ended)


def go_on(
    model: nn.Module,
    record: Record,
    training: Callable[[int], Iterator[int]],
    *,
    steps: int,
    save_every: int,
    at_step: Callable[[int], object],
    reached: Callable[[int], bool] = never,
) -> Literal["finished", "diverged"]:
    """Train a model in place from its record's checkpoint, and return how that ended.

    ``training`` is called with the steps already taken. ``at_step`` is called before the first
    step, after every step, and again for the steps since the checkpoint if the run was stopped.
    Training ends at the first step at which ``reached`` holds, and what was planned after it is
    taken out of the manifest. Where it ends before ``steps`` otherwise, it has diverged.
    """
    checkpoint = record.load_arrays("checkpoint")
    first = 0
    if checkpoint is not None:
        state, facts = checkpoint
        model.load_state_dict(state)
        first = facts["step"]
    step = first
    for step in training(first):
        at_step(step)
        if reached(step):
            planned = record.manifest.get("planned_steps", [])
            record.update(planned_steps=[at for at in planned if at <= step])
            return "finished"
        if step % save_every == 0:
            record.save_arrays("checkpoint", model.state_dict(), step=step)
    if step < steps:
        record.update(diverged_at=step)
        return "diverged"
    return "finished"
