"""Steps of training, which every training loop takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from lossgeom.lab.training.objective import Batches, Objective
from lossgeom.losses import LossLike, as_loss

Move = Callable[[int, list[Tensor]], None]


def descend(
    model: nn.Module,
    loss: LossLike,
    batches: Callable[[int], Batches],
    *,
    lr: float,
    steps: int,
    first: int,
) -> Iterator[int]:
    """Train in place with the gradient on the batches of each step, all together.

    Yields as :func:`follow` does.
    """
    check_lr(lr)
    objective = Objective(model, as_loss(loss), batches)

    @torch.no_grad()
    def move(step: int, gradients: list[Tensor]) -> None:  # noqa: ARG001
        for parameter, gradient in zip(objective.parameters, gradients, strict=True):
            parameter.sub_(gradient, alpha=lr)

    return follow(objective.gradient_at, move, steps=steps, first=first)


def follow(
    gradient_at: Callable[[int], list[Tensor]], move: Move, *, steps: int, first: int
) -> Iterator[int]:
    """Train in place: move the parameters by what each step and its gradient say.

    Yields ``first, ..., steps``, and ends early, after the step whose gradient has no finite norm.
    """
    if steps < first:
        raise ValueError(f"expected steps >= {first}, the steps already taken; got {steps}")
    for step in range(first, steps):
        yield step
        gradients = gradient_at(step)
        norms = [torch.linalg.vector_norm(gradient) for gradient in gradients]
        if not torch.linalg.vector_norm(torch.stack(norms)).isfinite():
            return
        move(step, gradients)
    yield steps


def check_lr(lr: float) -> None:
    """Raise unless a learning rate is positive."""
    if not lr > 0:
        raise ValueError(f"expected a learning rate lr > 0, got {lr}")
