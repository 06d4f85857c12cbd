"""The summed loss of a batch as a function of the model's outputs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lossgeom.autodiff.batch_jacobian import pulled
from lossgeom.batches import Batch
from lossgeom.problem import Problem


@dataclass(frozen=True, eq=False)
class LossAtOutputs:
    """The summed loss of a batch as a function of its outputs.

    Attributes:
        residual: its gradient in the outputs, with a graph.
        count: the number of its terms.
    """

    outputs: Tensor
    residual: Tensor
    count: float

    @classmethod
    def of(cls, problem: Problem, outputs: Tensor, batch: Batch) -> LossAtOutputs:
        """Differentiate the loss once in the outputs."""
        at = outputs.detach().requires_grad_()
        total, count = problem.terms(at, batch)
        if not total.requires_grad:
            return cls(at, torch.zeros_like(at), count)
        (residual,) = torch.autograd.grad(total, at, create_graph=True, materialize_grads=True)
        return cls(at, residual, count)

    def curve(self, u: Tensor) -> Tensor:
        """Multiply u by the Hessian of the summed loss in the outputs."""
        return pulled(self.residual, self.outputs, u)

    def check_separable(self, name: str) -> None:
        """Refuse a loss that compares examples with each other, where one row is one example."""
        if len(self.outputs) < 2 or not self.residual.requires_grad:
            return
        u = torch.zeros_like(self.outputs)
        u[::2] = torch.arange(1.0, u[::2].numel() + 1).cos().to(u).reshape(u[::2].shape)
        if self.curve(u)[1::2].any():
            raise ValueError(
                f"expected the loss {name!r} to be a sum over examples, but that of one example "
                "depends on the outputs of others"
            )
