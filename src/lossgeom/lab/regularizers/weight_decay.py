"""Weight decay as a term of the objective."""

import torch
from torch import Tensor

from lossgeom.batches import Batch
from lossgeom.lab.regularizers._penalty import add_multiple
from lossgeom.lab.training import Objective, Regularizer


def weight_decay(strength: float) -> Regularizer:
    r"""Add :math:`\tfrac{w}{2} \|\theta\|^2`, biases included.

    Its gradient is :math:`w \theta`, as of ``weight_decay`` of :class:`torch.optim.SGD`.

    Args:
        strength: w.

    Raises:
        ValueError: if it is negative.

    Source: Krogh and Hertz, A simple weight decay can improve generalization (1991).

    >>> from torch import nn
    >>> from lossgeom.lab.training import optimize
    >>> model = nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.constant_(model.weight, 2.0)
    >>> data, optimizer = [(torch.zeros(1, 1),) * 2], torch.optim.SGD(model.parameters(), 1.0)
    >>> options = {"optimizers": [optimizer], "regularizers": [weight_decay(0.1)], "steps": 1}
    >>> [round(model.weight.item(), 3) for _ in optimize(model, "squared_error", data, **options)]
    [2.0, 1.8]
    """
    return add_multiple(strength, _half_square)


def _half_square(objective: Objective, batch: Batch, step: int) -> tuple[Tensor, float]:  # noqa: ARG001
    squares = torch.stack([parameter.square().sum() for parameter in objective.parameters])
    return squares.sum() / 2, 1.0
