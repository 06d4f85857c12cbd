"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from lossgeom.lab.training._descent import descend
from lossgeom.losses import LossLike


def sgd(
    model: nn.Module,
    loss: LossLike,
    examples: tuple[Tensor, Tensor],
    *,
    lr: float,
    batch_size: int,
    steps: int,
    seed: int,
    first: int = 0,
) -> Iterator[int]:
    r"""Train in place with :math:`\theta \leftarrow \theta - \eta \nabla L_B(\theta)`.

    The loss :math:`L_B` is that of a batch. An epoch goes through all examples once, in an order of
    its own, cut into batches; where their size does not divide the number of examples, the last of
    an epoch is smaller. There is no momentum. The batch of a step depends on ``seed`` and on the
    step alone, so that a run that was stopped goes on as if it had not been.

    Yields ``first, ..., steps`` as :func:`lossgeom.lab.training.gradient_descent` does, and ends
    early in the same way, after the step at which the gradient of the batch has no finite norm.

    Args:
        model: trained in place, in the mode that it is in.
        loss: as for :class:`lossgeom.Problem`.
        examples: all inputs and all targets.
        lr: the step size.
        batch_size: examples in a batch, at most all.
        steps: how many steps the model has taken in the end.
        seed: of the order of the examples; the global generator is left as it is.
        first: how many steps it has taken already.

    Raises:
        ValueError: if lr is not positive, steps is less than first, or there are fewer examples
            than in a batch, or none.

    >>> model = nn.Linear(1, 1, bias=False)
    >>> model.weight.data.fill_(8.0)
    tensor([[8.]])
    >>> data = (torch.ones(4, 1), torch.zeros(4, 1))
    >>> training = sgd(model, "squared_error", data, lr=0.5, batch_size=2, steps=3, seed=0)
    >>> [model.weight.item() for _ in training]
    [8.0, 4.0, 2.0, 1.0]
    """
    inputs, targets = examples
    if not 1 <= batch_size <= len(inputs):
        raise ValueError(f"expected a batch_size of 1 to {len(inputs)} examples, got {batch_size}")
    per_epoch = -(-len(inputs) // batch_size)

    @lru_cache(maxsize=1)
    def batches_of(epoch: int) -> list[tuple[Tensor, Tensor]]:
        order = torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(len(inputs)))
        parts = (torch.split(part[order], batch_size) for part in (inputs, targets))
        return list(zip(*parts, strict=True))

    def batch_of(step: int) -> list[tuple[Tensor, Tensor]]:
        epoch, place = divmod(step, per_epoch)
        return [batches_of(epoch)[place]]

    return descend(model, loss, batch_of, lr=lr, steps=steps, first=first)
