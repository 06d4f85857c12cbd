"""Gradient descent that goes on where a run was stopped."""

from __future__ import annotations

from collections.abc import Callable

from lossgeom.lab.training import gradient_descent
from lossgeom.problem import Problem
from lossgeom.record import Record


def descend(
    problem: Problem,
    record: Record,
    *,
    lr: float,
    steps: int,
    save_every: int,
    at_step: Callable[[int], object],
) -> None:
    """Train a problem's model in place from its record's checkpoint, and say how that ended.

    ``at_step`` is called before the first step, after every step, and again for the steps since
    the checkpoint if the run was stopped.
    """
    model = problem.model
    checkpoint = record.load_arrays("checkpoint")
    first = 0
    if checkpoint is not None:
        state, facts = checkpoint
        model.load_state_dict(state)
        first = facts["step"]
    step = first
    for step in gradient_descent(
        model, problem.criterion, problem.batches, lr=lr, steps=steps, first=first
    ):
        at_step(step)
        if step % save_every == 0:
            record.save_arrays("checkpoint", model.state_dict(), step=step)
    if step < steps:
        record.update(diverged_at=step)
    record.finish("finished" if step == steps else "diverged")
