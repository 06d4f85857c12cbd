"""Steps down the gradient, which every training loop takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from lossgeom.batches import Batch
from lossgeom.losses import Loss, LossLike, as_loss


def descend(
    model: nn.Module,
    loss: LossLike,
    batches: Callable[[int], Iterable[Any]],
    *,
    lr: float,
    steps: int,
    first: int,
) -> Iterator[int]:
    """Train in place with the gradient on the batches of each step, all together.

    Yields ``first, ..., steps``, and ends early, after the step whose gradient has no finite norm.
    """
    if not lr > 0:
        raise ValueError(f"expected a learning rate lr > 0, got {lr}")
    if steps < first:
        raise ValueError(f"expected steps >= {first}, the steps already taken; got {steps}")
    criterion = as_loss(loss)
    parameters = [p for p in model.parameters() if p.requires_grad]
    for step in range(first, steps):
        yield step
        gradients = _gradients(model, criterion, batches(step), parameters)
        if not get_total_norm(gradients).isfinite():
            return
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.sub_(gradient, alpha=lr)
    yield steps


def _gradients(
    model: nn.Module, criterion: Loss, batches: Iterable[Any], parameters: list[nn.Parameter]
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
