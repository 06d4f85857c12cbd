"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from lossgeom.lab.training._descent import descend
from lossgeom.lab.training._drawn import Sampling, batch_of_step
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
    sampling: Sampling = "reshuffling",
    first: int = 0,
) -> Iterator[int]:
    r"""Train in place with :math:`\theta \leftarrow \theta - \eta \nabla L_B(\theta)`.

    The loss :math:`L_B` is that of a batch. By reshuffling, an epoch goes through all examples
    once, in an order of its own, cut into batches; where their size does not divide the number of
    examples, the last of an epoch is smaller. Without replacement, batches are of different
    examples each, and independent of each other, as in the theory of the stability of SGD. There is
    no momentum. The batch of a step depends on ``seed`` and on the step alone, so that a run that
    was stopped goes on as if it had not been.

    Yields ``first, ..., steps`` as :func:`lossgeom.lab.training.gradient_descent` does, and ends
    early in the same way, after the step at which the gradient of the batch has no finite norm.

    Args:
        model: trained in place, in the mode that it is in.
        loss: as for :class:`lossgeom.Problem`.
        examples: all inputs and all targets.
        lr: the step size.
        batch_size: examples in a batch, at most all.
        steps: how many steps the model has taken in the end.
        seed: of the batches; the global generator is left as it is.
        sampling: ``"reshuffling"`` or ``"without replacement"``.
        first: how many steps it has taken already.

    Raises:
        ValueError: if lr is not positive, steps is less than first, there are fewer examples than
            in a batch, or none, or sampling is another one.

    >>> import torch
    >>> model = nn.Linear(1, 1, bias=False)
    >>> model.weight.data.fill_(8.0)
    tensor([[8.]])
    >>> data = (torch.ones(4, 1), torch.zeros(4, 1))
    >>> training = sgd(model, "squared_error", data, lr=0.5, batch_size=2, steps=3, seed=0)
    >>> [model.weight.item() for _ in training]
    [8.0, 4.0, 2.0, 1.0]
    """
    batches = batch_of_step(examples, batch_size, seed=seed, sampling=sampling)
    return descend(model, loss, batches, lr=lr, steps=steps, first=first)
