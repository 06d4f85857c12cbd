"""A penalty on the gradient of the loss in the input."""

import torch
from torch import Tensor

from lossgeom.batches import Batch
from lossgeom.lab.regularizers._penalty import add_multiple
from lossgeom.lab.training import Objective, Regularizer


def input_gradient(strength: float) -> Regularizer:
    r"""Add :math:`s\, \mathrm{mean}_i \|\nabla_x \ell(f(x_i), y_i)\|_2^2`.

    Cost: a second derivative, about twice that of a gradient more. With batch normalisation in
    train mode the gradient is that of the sum of the losses of the batch.

    Args:
        strength: s.

    Raises:
        ValueError: if it is negative.

    Source: Drucker and LeCun, Improving generalization performance using double backpropagation
    (1992).

    >>> from lossgeom.losses import as_loss
    >>> data = [(torch.tensor([[1.0, 2.0]]), torch.zeros(1, 2))]
    >>> plain = Objective(torch.nn.Identity(), as_loss("squared_error"), lambda _: data)
    >>> plain.at(0)[0].item(), input_gradient(1.0)(plain).at(0)[0].item()
    (2.5, 7.5)
    """
    return add_multiple(strength, _square)


def _square(objective: Objective, batch: Batch, step: int) -> tuple[Tensor, float]:  # noqa: ARG001
    inputs = batch.input.detach().clone().requires_grad_()
    total, _ = objective.loss_of(batch.with_tensor(batch.input, inputs))
    (gradient,) = torch.autograd.grad(total, inputs, create_graph=True)
    return gradient.square().sum(), float(len(inputs))
