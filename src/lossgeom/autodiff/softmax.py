"""Products with the Jacobian of a softmax that saturated probabilities do not spoil."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class SoftmaxJacobian:
    r"""A = diag(p) - p p^T at each of S positions of each example, over its largest entry.

    Since A 1 = 0, a vector may be shifted by its entry at the largest probability first. No
    difference of nearly equal numbers is then taken, however close that one is to 1.

    Attributes:
        p: probabilities, in float64.
        top: the class with the largest of them.
        scale: the largest entry of an example, which A is divided by.
    """

    p: Float[Tensor, "B S C"]
    top: Int[Tensor, "B S 1"]
    scale: Float[Tensor, " B"]

    @classmethod
    def at(cls, logits: Float[Tensor, "B S C"]) -> SoftmaxJacobian:
        """Take the Jacobian at some logits."""
        p = logits.detach().double().softmax(-1)
        largest, top = p.max(-1, keepdim=True)
        others = p.scatter(-1, top, 0.0).sum(-1, keepdim=True)
        scale = (largest * others).amax((1, 2))
        return cls(p, top, torch.where(scale > 0, scale, 1.0))

    def times(self, U: Float[Tensor, "*k B SC"]) -> Float[Tensor, "*k B SC"]:
        """Multiply vectors of each example by A, which is symmetric."""
        U64 = U.double().reshape(*U.shape[:-1], *self.p.shape[1:])
        shifted = U64 - U64.gather(-1, self.top.expand(*U64.shape[:-1], 1))
        mean = (self.p * shifted).sum(-1, keepdim=True)
        product: Tensor = self.p * (shifted - mean) / self.scale[:, None, None]
        return product.reshape(U.shape).to(U.dtype)
