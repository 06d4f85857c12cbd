"""One step of training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from lossgeom.batches import Batch
from lossgeom.losses import Loss


def descended(
    model: nn.Module,
    criterion: Loss,
    batches: Iterable[Any],
    parameters: list[nn.Parameter],
    lr: float,
) -> bool:
    """Go down the gradient on all batches together, if its norm is finite; say whether it is."""
    gradients = _gradients(model, criterion, batches, parameters)
    if not get_total_norm(gradients).isfinite():
        return False
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.sub_(gradient, alpha=lr)
    return True


def check_schedule(lr: float, first: int, steps: int) -> None:
    """Raise a ValueError unless there is something to do."""
    if not lr > 0:
        raise ValueError(f"expected a learning rate lr > 0, got {lr}")
    if steps < first:
        raise ValueError(f"expected steps >= {first}, the steps already taken; got {steps}")


def _gradients(
    model: nn.Module, criterion: Loss, batches: Iterable[Any], parameters: list[nn.Parameter]
) -> list[Tensor]:
    """Sums over batches, divided once."""
    total: list[Tensor] = []
    count = 0.0
    for index, raw in enumerate(batches):
        batch = Batch.of(raw, index)
        part, terms = criterion.terms(model(batch.input), batch)
        more = torch.autograd.grad(part, parameters)
        total = [a + b for a, b in zip(total, more, strict=True)] if total else list(more)
        count += float(terms)
    return [gradient / count for gradient in total] if criterion.average else total
