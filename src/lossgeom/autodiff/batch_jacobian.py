"""Products with the Jacobian of the outputs of a batch, by autograd's graph of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.linalg import LinearOperator
from lossgeom.linalg.operator import MatrixFree
from lossgeom.losses.graphs import check_differentiable_again
from lossgeom.problem.isolation import measuring

LARGEST_ROWS = 2 * 2**30  # bytes of a Jacobian that is kept row by row


@runtime_checkable
class Linear(Protocol):
    """What multiplies by the Jacobian J of the outputs of one batch in a leaf, from both sides."""

    @property
    def outputs(self) -> Tensor:
        """The outputs that J is the Jacobian of."""
        ...

    @property
    def leaf(self) -> Tensor:
        """The tensor that J is the Jacobian in."""
        ...

    def pull(self, u: Tensor) -> Tensor:
        """Return J^T u."""
        ...

    def push(self, v: Tensor) -> Tensor:
        """Return J v."""
        ...


class BatchJacobian:
    """Products with the derivative J of outputs in a leaf that they were computed from.

    J v is the transpose of J^T u, by a second derivative of the outputs; its graph is made when it
    is first asked for, at the cost of some products.

    Args:
        outputs: computed from the leaf.
        leaf: what to differentiate in.
        by_rows: whether J is computed row by row, and kept, where the model has no such derivative.
    """

    def __init__(self, outputs: Tensor, leaf: Tensor, *, by_rows: bool = False) -> None:
        self.outputs = outputs
        self.leaf = leaf
        self._by_rows = by_rows
        self._twice = True  # whether J^T u has a derivative in u, as far as is known

    def prepared(self) -> BatchJacobian:
        """Make the graph that the products share, and return the same object."""
        self._transposed  # noqa: B018
        return self

    def pull(self, u: Tensor) -> Tensor:
        """Return J^T u."""
        return pulled(self.outputs, self.leaf, u)

    def push(self, v: Tensor) -> Tensor:
        """Return J v, as the transpose of the transposed product."""
        if self._transposed is not None and self._twice:
            u, gradient = self._transposed
            try:
                return pulled(gradient, u, v)
            except NotImplementedError:  # of a function whose backward has no derivative
                if not self._by_rows:
                    raise
                self._twice = False
        return (self._rows @ v.reshape(-1)).view_as(self.outputs)

    @cached_property
    def _transposed(self) -> tuple[Tensor, Tensor] | None:
        """A zero vector u, and J^T u with its graph; ``None`` where rows take their place."""
        u = torch.zeros_like(self.outputs, requires_grad=True)
        gradient = pulled(self.outputs, self.leaf, u, create_graph=True)
        try:
            check_differentiable_again(gradient)
        except ValueError:
            if not self._by_rows:
                raise
            return None
        return u, gradient

    @cached_property
    def _rows(self) -> Tensor:
        outputs, P = self.outputs.numel(), self.leaf.numel()
        if outputs * P * self.leaf.element_size() > LARGEST_ROWS:
            raise ValueError(
                "the model uses an operation without second derivatives, and the Jacobian of a "
                f"batch, {outputs} x {P}, is too large to be computed row by row: expected at most "
                f"{LARGEST_ROWS / 2**30:g} GiB; use smaller batches"
            )
        units = torch.eye(outputs, device=self.leaf.device, dtype=self.outputs.dtype)
        return torch.stack([self.pull(u.view_as(self.outputs)).reshape(-1) for u in units])


def pulled(y: Tensor, x: Tensor, u: Tensor, *, create_graph: bool = False) -> Tensor:
    """Return (dy/dx)^T u, which is zero where nothing depends on x."""
    if not y.requires_grad:
        return torch.zeros_like(x)
    (result,) = torch.autograd.grad(
        y, x, u, create_graph=create_graph, retain_graph=True, materialize_grads=True
    )
    return result


def jacobian_of(parts: Sequence[Linear]) -> LinearOperator:
    """Stack the Jacobians of all batches, one below the other."""
    leaf, sizes = parts[0].leaf, [part.outputs.numel() for part in parts]

    def push(V: Float[Tensor, "P k"]) -> Float[Tensor, "NC k"]:
        with measuring(leaf.device):
            columns = [torch.cat([part.push(v).reshape(-1) for part in parts]) for v in V.T]
        return torch.stack(columns, 1).detach()

    def pull(U: Float[Tensor, "NC k"]) -> Float[Tensor, "P k"]:
        with measuring(leaf.device):
            columns = [torch.stack([*map(_pull, parts, u.split(sizes))]).sum(0) for u in U.T]
        return torch.stack(columns, 1).detach()

    return both_ways((sum(sizes), leaf.numel()), leaf, push, pull)


def both_ways(
    size: tuple[int, int],
    like: Tensor,
    push: Callable[[Tensor], Tensor],
    pull: Callable[[Tensor], Tensor],
) -> LinearOperator:
    """Make a matrix for vectors like one, from its product and that of its transpose."""
    A = MatrixFree(size, like.dtype, like.device, push, lambda: transposed)
    transposed = MatrixFree(size[::-1], like.dtype, like.device, pull, lambda: A)
    return A


def _pull(part: Linear, u: Float[Tensor, " n"]) -> Float[Tensor, " P"]:
    return part.pull(u.reshape(part.outputs.shape))
