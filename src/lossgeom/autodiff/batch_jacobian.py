"""Products with the Jacobian of one batch's outputs, and its summed loss in those outputs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lossgeom.batches import Batch
from lossgeom.problem import Problem
from lossgeom.problem.network import check_differentiable_again

LARGEST_ROWS = 2 * 2**30  # bytes of a Jacobian that is kept row by row
AGAIN = {"retain_graph": True, "materialize_grads": True}


class BatchJacobian:
    """J v and J^T u, with J the derivative of outputs in a leaf that they were computed from.

    J v is the transpose of J^T u, by a second derivative of the outputs.

    Args:
        outputs: computed from the leaf.
        leaf: what to differentiate in.
        by_rows: whether J is computed row by row, and kept, where the model has none.
    """

    def __init__(self, outputs: Tensor, leaf: Tensor, *, by_rows: bool = False) -> None:
        self.outputs = outputs
        self.leaf = leaf
        self._by_rows = by_rows
        self._constant = not outputs.requires_grad
        if self._constant:
            return
        self._cotangent = torch.zeros_like(outputs, requires_grad=True)
        (self._pulled,) = torch.autograd.grad(
            outputs, leaf, self._cotangent, create_graph=True, materialize_grads=True
        )
        self._rows: Tensor | None = None
        try:
            check_differentiable_again(self._pulled)
        except ValueError:
            if not by_rows:
                raise
            self._rows = self._all_rows()

    def pull(self, u: Tensor) -> Tensor:
        """J^T u."""
        if self._constant:
            return torch.zeros_like(self.leaf)
        (result,) = torch.autograd.grad(self.outputs, self.leaf, u, **AGAIN)
        return result

    def push(self, v: Tensor) -> Tensor:
        """J v, as the transpose of the transposed product."""
        if self._constant or not self._pulled.requires_grad:
            return torch.zeros_like(self.outputs)
        if self._rows is None:
            try:
                return torch.autograd.grad(self._pulled, self._cotangent, v, **AGAIN)[0]
            except NotImplementedError:  # of a function whose backward has no derivative
                if not self._by_rows:
                    raise
                self._rows = self._all_rows()
        return (self._rows @ v.reshape(-1)).view_as(self.outputs)

    def _all_rows(self) -> Tensor:
        outputs, P = self.outputs.numel(), self.leaf.numel()
        if outputs * P * self.leaf.element_size() > LARGEST_ROWS:
            raise ValueError(
                "the model uses an operation without second derivatives, and the Jacobian of a "
                f"batch, {outputs} x {P}, is too large to be computed row by row: expected at most "
                f"{LARGEST_ROWS / 2**30:g} GiB; use smaller batches"
            )
        units = torch.eye(outputs, device=self.leaf.device, dtype=self.outputs.dtype)
        return torch.stack([self.pull(u.view_as(self.outputs)).reshape(-1) for u in units])


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
        """The Hessian of the summed loss in the outputs, times u."""
        if not self.residual.requires_grad:  # a loss linear in the outputs
            return torch.zeros_like(u)
        (result,) = torch.autograd.grad(self.residual, self.outputs, u, **AGAIN)
        return result

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
