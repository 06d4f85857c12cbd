"""Training with torch's optimisers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lossgeom.lab.training._descent import check_lr, follow
from lossgeom.lab.training.ascents import Ascent
from lossgeom.lab.training.objective import Objective, Regularizer, objective_of
from lossgeom.lab.training.schedules import Schedule
from lossgeom.losses import LossLike


def optimize(
    model: nn.Module,
    loss: LossLike,
    batches: Iterable[Any] | Callable[[int], Iterable[Any]],
    *,
    optimizers: Sequence[Optimizer],
    steps: int,
    first: int = 0,
    schedule: Schedule | None = None,
    ascent: Ascent | None = None,
    clip: float | None = None,
    regularizers: Sequence[Regularizer] = (),
    seed: int = 0,
) -> Iterator[int]:
    r"""Train in place with torch's optimisers, each of which takes one step at a time.

    They get the gradient of the loss of the full batch, or of a batch of every step; see
    :func:`batch_of_step`. A model whose matrices and biases have an optimiser each has two.

    Yields ``first, ..., steps`` as :func:`lossgeom.lab.training.gradient_descent` does, and ends
    early in the same way, after the step at which the gradient has no finite norm. Gradients are
    gone between steps. Model and optimisers hold all that a run needs to go on as if it had not
    been stopped, with the batches that it had.

    Args:
        model: trained in place, in the mode that it is in.
        loss: as for :class:`lossgeom.Problem`.
        batches: pairs (inputs, targets) that together are the full batch, or a function from the
            step to those of this step; gradients are added before they are divided.
        optimizers: made with the model's parameters. What none of them has stays as it is.
        steps: how many steps the model has taken in the end.
        first: how many it and its optimisers have taken already.
        schedule: from the step to the factor on every learning rate; see ``SCHEDULES``.
        ascent: where the gradient is looked at, with one more for each step; see ``ASCENTS``.
        clip: the largest norm of the gradient of all parameters; a longer one is shortened to it.
        regularizers: what changes the loss, in this order; see ``REGULARIZERS``.
        seed: of what they and the model, as in dropout, draw; the global generator is left as it
            is.

    Raises:
        ValueError: if there is no optimiser, a learning rate is not positive, or steps is less than
            first.

    >>> import torch
    >>> model = nn.Linear(1, 1, bias=False)
    >>> model.weight.data.fill_(8.0)
    tensor([[8.]])
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    >>> data = [(torch.ones(1, 1), torch.zeros(1, 1))]
    >>> training = optimize(model, "squared_error", data, optimizers=[optimizer], steps=3)
    >>> [model.weight.item() for _ in training]
    [8.0, 4.0, 2.0, 1.0]
    """
    if not optimizers:
        raise ValueError("expected one optimiser or more, got none")
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    for group in groups:
        check_lr(float(group["lr"]))
    objective = objective_of(model, loss, batches, regularizers, seed)

    def gradient_at(step: int) -> list[Tensor]:
        gradients = objective.gradient_at(step)
        return _uphill(objective, step, ascent, gradients) if ascent else gradients

    def move(step: int, gradients: list[Tensor]) -> None:
        parameters = objective.parameters
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        if clip is not None:
            nn.utils.clip_grad_norm_(parameters, clip)
        if schedule is not None:
            _rescale(groups, schedule(step))
        for optimizer in optimizers:
            optimizer.step()
        for parameter in parameters:
            parameter.grad = None

    return follow(gradient_at, move, steps=steps, first=first)


def _rescale(groups: list[dict[str, Any]], factor: float) -> None:
    """Set learning rates to a factor times those at the beginning."""
    for group in groups:
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor


def _uphill(
    objective: Objective, step: int, ascent: Ascent, gradients: list[Tensor]
) -> list[Tensor]:
    """The gradient where an ascent leads to from here."""
    parameters = objective.parameters
    up = ascent(parameters, gradients)
    here = [parameter.detach().clone() for parameter in parameters]
    with torch.no_grad():
        for parameter, part in zip(parameters, up, strict=True):
            parameter.add_(part)
    found = objective.gradient_at(step)
    with torch.no_grad():
        for parameter, before in zip(parameters, here, strict=True):
            parameter.copy_(before)
    return found
