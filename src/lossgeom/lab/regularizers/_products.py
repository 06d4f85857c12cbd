"""Products with the Hessian that can be differentiated again."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lossgeom.batches import Batch
from lossgeom.lab.training import Objective


def hessian_product(
    objective: Objective, batch: Batch, vector: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor], float]:
    """v^T H v and H v of the sum of a batch's terms, and their number."""
    total, count = objective.loss_of(batch)
    parameters = objective.parameters
    gradient = torch.autograd.grad(total, parameters, create_graph=True, materialize_grads=True)
    slope = inner(gradient, vector)
    product = torch.autograd.grad(slope, parameters, create_graph=True, materialize_grads=True)
    return inner(product, vector), [part.detach() for part in product], count


def inner(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """The inner product of two vectors in parts."""
    return torch.stack([(x * y).sum() for x, y in zip(a, b, strict=True)]).sum()
