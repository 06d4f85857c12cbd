"""Steps of training, which every training loop takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lossgeom.batches import Batch
from lossgeom.losses import Loss, LossLike, as_loss

Batches = Iterable[Any]
Move = Callable[[list[nn.Parameter], list[Tensor]], None]


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
    if not lr > 0:
        raise ValueError(f"expected a learning rate lr > 0, got {lr}")

    @torch.no_grad()
    def move(parameters: list[nn.Parameter], gradients: list[Tensor]) -> None:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.sub_(gradient, alpha=lr)

    return follow(model, loss, batches, move, steps=steps, first=first)


def follow(
    model: nn.Module,
    loss: LossLike,
    batches: Callable[[int], Batches],
    move: Move,
    *,
    steps: int,
    first: int,
) -> Iterator[int]:
    """Train in place: move the parameters by what the gradient on each step's batches says.

    Yields ``first, ..., steps``, and ends early, after the step whose gradient has no finite norm.
    """
    if steps < first:
        raise ValueError(f"expected steps >= {first}, the steps already taken; got {steps}")
    criterion = as_loss(loss)
    parameters = [p for p in model.parameters() if p.requires_grad]
    for step in range(first, steps):
        yield step
        gradients = _gradients(model, criterion, batches(step), parameters)
        norms = [torch.linalg.vector_norm(gradient) for gradient in gradients]
        if not torch.linalg.vector_norm(torch.stack(norms)).isfinite():
            return
        move(parameters, gradients)
    yield steps


def _gradients(
    model: nn.Module, criterion: Loss, batches: Batches, parameters: list[nn.Parameter]
) -> list[Tensor]:
    """Sum over batches, and divide once."""
    total: list[Tensor] = []
    count = 0.0
    for index, raw in enumerate(batches):
        batch = Batch.of(raw, index)
        part, terms = criterion.terms(model(batch.input), batch)
        more = torch.autograd.grad(part, parameters)
        total = [a + b for a, b in zip(total, more, strict=True)] if total else list(more)
        count += float(terms)
    return [gradient / count for gradient in total] if criterion.average else total
