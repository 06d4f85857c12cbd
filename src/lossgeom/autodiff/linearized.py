"""The outputs of some examples with the graph of their Jacobians."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.autodiff.batch_jacobian import pulled
from lossgeom.autodiff.softmax import SoftmaxJacobian


@dataclass(frozen=True, eq=False)
class Linearized:
    """Outputs and what they are differentiated in, one row of each for every example.

    Attributes:
        leaf: (B, ...), what is differentiated in.
        outputs: computed from it.
        softmax: what is applied to the outputs' Jacobian from the left, or ``None``.
    """

    leaf: Tensor
    outputs: Float[Tensor, "B C"]
    softmax: SoftmaxJacobian | None = None

    @classmethod
    def of(cls, leaf: Tensor, outputs: Tensor) -> Linearized:
        """Linearise outputs (B, C), or (B, S, C) with a softmax over C."""
        if outputs.ndim == 2:
            return cls(leaf, outputs)
        return cls(leaf, outputs.flatten(1), SoftmaxJacobian.at(outputs))

    def __len__(self) -> int:
        return len(self.outputs)

    @property
    def C(self) -> int:  # noqa: N802
        """Outputs of an example."""
        return self.outputs.shape[1]

    @property
    def D(self) -> int:  # noqa: N802
        """Inputs of an example."""
        return math.prod(self.leaf.shape[1:])

    @property
    def constant(self) -> bool:
        """Whether the outputs do not depend on the leaf at all."""
        return not self.outputs.requires_grad

    @property
    def unit(self) -> Float[Tensor, " B"]:
        """What the Jacobians held here have to be multiplied with."""
        if self.softmax is None:
            return torch.ones(len(self), dtype=torch.float64, device=self.outputs.device)
        return self.softmax.scale

    def scaled(self, U: Float[Tensor, "*k B C"]) -> Float[Tensor, "*k B C"]:
        """The Jacobian of what is done to the outputs, which is symmetric, times vectors."""
        return U if self.softmax is None else self.softmax.times(U)

    def pull(self, u: Float[Tensor, "B C"]) -> Float[Tensor, "B D"]:
        """J^T u of every example; zero where the outputs do not depend on the leaf."""
        return pulled(self.outputs, self.leaf, self.scaled(u)).reshape(len(self), -1)

    def rows(self, first: int, last: int) -> Float[Tensor, "B k D"]:
        """Some rows of every example's Jacobian."""
        k, (B, C) = last - first, self.outputs.shape
        unit = torch.zeros(k, 1, C, dtype=self.outputs.dtype, device=self.outputs.device)
        unit[:, 0, first:last].fill_diagonal_(1)
        rows = self.outputs.new_empty(k, B, self.D)
        for place, u in enumerate(unit):
            rows[place] = self.pull(u.expand(B, C))
        return rows.transpose(0, 1)

    def check_independent(self) -> None:
        """Refuse examples that depend on each other.

        Summing over examples separates the Jacobians of others only.
        """
        if len(self) == 1 or self.constant:
            return
        for own in range(len(self)):
            u = torch.zeros_like(self.outputs)
            u[own] = torch.arange(1.0, self.C + 1).cos().to(u)
            rows = self.pull(u)
            rows[own] = 0
            if rows.nan_to_num(0).any():
                raise ValueError(
                    "expected the outputs of one example to depend on its own inputs alone, but "
                    "they depend on other examples in the batch"
                )
