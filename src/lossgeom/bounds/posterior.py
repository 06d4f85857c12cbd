"""Gaussian distributions over the parameters of a network."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.linalg import random_numbers
from lossgeom.messages.reprs import short


@dataclass(frozen=True, eq=False)
class Block:
    r"""An orthogonal basis :math:`U_l \otimes U_r` of the numbers of one parameter.

    Attributes:
        start: their first place in theta.
        left: (m, m), of its outputs.
        right: (n, n), of its inputs.
    """

    start: int
    left: Float[Tensor, "m m"]
    right: Float[Tensor, "n n"]


@dataclass(frozen=True, eq=False)
class Basis:
    r"""An orthogonal basis U of parameter space: the unit vectors, but for some blocks.

    Cost of a rotation: :math:`m n (m + n)` multiplications for each block.
    """

    blocks: tuple[Block, ...] = ()

    def rotate(self, v: Float[Tensor, "*k P"]) -> Float[Tensor, "*k P"]:
        r"""Coordinates :math:`U^\top v`."""
        return self._applied(v, [(b.start, b.left.T, b.right) for b in self.blocks])

    def unrotate(self, c: Float[Tensor, "*k P"]) -> Float[Tensor, "*k P"]:
        """The vector U c that has these coordinates."""
        return self._applied(c, [(b.start, b.left, b.right.T) for b in self.blocks])

    def _applied(self, v: Tensor, factors: list[tuple[int, Tensor, Tensor]]) -> Tensor:
        result = v.clone() if factors else v
        for start, left, right in factors:
            m, n = len(left), len(right)
            inside = slice(start, start + m * n)
            matrix = v[..., inside].reshape(*v.shape[:-1], m, n)
            result[..., inside] = (left @ matrix @ right).flatten(-2)
        return result


@dataclass(frozen=True, eq=False)
class Posterior:
    r"""A normal distribution :math:`N(\mu, U \mathrm{diag}(\sigma^2) U^\top)` of theta.

    Attributes:
        mean: mu.
        log_std: the logarithms of sigma, in the basis.
        basis: U.
    """

    mean: Float[Tensor, " P"]
    log_std: Float[Tensor, " P"]
    basis: Basis

    __repr__ = short

    def sample(self, k: int, *, seed: int = 0) -> Float[Tensor, "k P"]:
        """Draw k parameter vectors, on the CPU from a generator of its own."""
        return self.draw(k, random_numbers(seed))

    def draw(self, k: int, generator: torch.Generator) -> Float[Tensor, "k P"]:
        """Draw k parameter vectors from a generator."""
        normal = torch.randn(k, len(self.mean), generator=generator, dtype=self.mean.dtype)
        return self.mean + self.basis.unrotate(self.log_std.exp() * normal.to(self.mean))
