"""Full-batch gradient descent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn

from lossgeom.lab.training._descent import descend
from lossgeom.losses import LossLike


def gradient_descent(
    model: nn.Module,
    loss: LossLike,
    batches: Iterable[Any],
    *,
    lr: float,
    steps: int,
    first: int = 0,
) -> Iterator[int]:
    r"""Train in place with :math:`\theta \leftarrow \theta - \eta \nabla L(\theta)`.

    Yields ``first, ..., steps``: at each yield the model has taken that many steps, so the last
    comes after the last step. A step whose gradient has no finite norm is not taken: training has
    diverged, and the generator ends early, after the step at which that was so.

    Args:
        model: trained in place, in the mode that it is in.
        loss: as for :class:`lossgeom.Problem`.
        batches: pairs (inputs, targets) that together are the full batch; the gradients of their
            sums are added before they are divided by the number of terms.
        lr: the step size.
        steps: how many steps the model has taken in the end.
        first: how many it has taken already.

    Raises:
        ValueError: if lr is not positive or steps is less than first.

    >>> import torch
    >>> model = nn.Linear(1, 1, bias=False)
    >>> data = [(torch.ones(1, 1), torch.zeros(1, 1))]
    >>> model.weight.data.fill_(8.0)
    tensor([[8.]])
    >>> [model.weight.item() for _ in gradient_descent(model, "squared_error", data, lr=0.5, steps=3)]
    [8.0, 4.0, 2.0, 1.0]
    """  # noqa: E501
    return descend(model, loss, lambda _: batches, lr=lr, steps=steps, first=first)
