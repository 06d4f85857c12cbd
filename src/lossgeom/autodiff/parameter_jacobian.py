"""Jacobians of outputs, batch by batch, from graphs that are there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.autodiff.batch_jacobian import BatchJacobian
from lossgeom.linalg import LinearOperator
from lossgeom.linalg.operator import MatrixFree
from lossgeom.problem.isolation import measuring


class Linearized(ABC):
    """A Jacobian of the outputs of one batch."""

    outputs: Tensor
    leaf: Float[Tensor, " P"]

    @abstractmethod
    def pull(self, u: Tensor) -> Float[Tensor, " P"]:
        """J^T u."""

    @abstractmethod
    def push(self, v: Float[Tensor, " P"]) -> Tensor:
        """J v."""


@dataclass(frozen=True, eq=False)
class Graph(Linearized):
    """By reverse mode, from the graph of what J is the Jacobian of."""

    outputs: Tensor
    leaf: Float[Tensor, " P"]

    def pull(self, u: Tensor) -> Float[Tensor, " P"]:
        return pulled(self.outputs, self.leaf, u)

    def push(self, v: Float[Tensor, " P"]) -> Tensor:
        return self._twice.push(v)

    @cached_property
    def _twice(self) -> BatchJacobian:  # which costs as much as some products
        return BatchJacobian(self.outputs, self.leaf)


def pulled(y: Tensor, x: Tensor, u: Tensor, *, create_graph: bool = False) -> Tensor:
    """(dy/dx)^T u; zero where nothing depends on x."""
    if not y.requires_grad:
        return torch.zeros_like(x)
    (result,) = torch.autograd.grad(
        y, x, u, create_graph=create_graph, retain_graph=True, materialize_grads=True
    )
    return result


def jacobian_of(parts: Sequence[Linearized]) -> LinearOperator:
    """The Jacobians of all batches, one below the other."""
    leaf, sizes = parts[0].leaf, [part.outputs.numel() for part in parts]

    def push(V: Float[Tensor, "P k"]) -> Float[Tensor, "NC k"]:
        with measuring(leaf.device):
            columns = [torch.cat([part.push(v).reshape(-1) for part in parts]) for v in V.T]
        return torch.stack(columns, 1).detach()

    def pull(U: Float[Tensor, "NC k"]) -> Float[Tensor, "P k"]:
        with measuring(leaf.device):
            columns = [torch.stack([*map(_pull, parts, u.split(sizes))]).sum(0) for u in U.T]
        return torch.stack(columns, 1).detach()

    J = MatrixFree((sum(sizes), leaf.numel()), leaf.dtype, leaf.device, push, lambda: JT)
    JT = MatrixFree((leaf.numel(), sum(sizes)), leaf.dtype, leaf.device, pull, lambda: J)
    return J


def _pull(part: Linearized, u: Float[Tensor, " n"]) -> Float[Tensor, " P"]:
    return part.pull(u.reshape(part.outputs.shape))
