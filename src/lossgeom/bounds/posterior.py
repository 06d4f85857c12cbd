"""Gaussian distributions over the parameters of a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.linalg import random_numbers
from lossgeom.messages.reprs import short


@dataclass(frozen=True, eq=False)
class Block:
    r"""An orthogonal basis :math:`U_l \otimes U_r` of the numbers of one parameter.

    Attributes:
        size: how many numbers there are.
        left: (m, m), of its outputs; None for the unit vectors.
        right: (n, n), of its inputs; None where it has none, and m numbers.
    """

    size: int
    left: Float[Tensor, "m m"] | None = None
    right: Float[Tensor, "n n"] | None = None

    def rotate(self, v: Float[Tensor, "*k mn"]) -> Float[Tensor, "*k mn"]:
        r"""Coordinates :math:`U^\top v`."""
        return self.inverse.unrotate(v)

    def unrotate(self, c: Float[Tensor, "*k mn"]) -> Float[Tensor, "*k mn"]:
        """The vector U c that has these coordinates."""
        left, right, turned = self.left, self.inverse.right, self.inverse.left
        if left is None or turned is None:
            return c
        if right is None:
            return c @ turned
        X = c.view(*c.shape[:-1], left.shape[0], right.shape[0])
        return (left @ (X @ right)).view(c.shape)

    @cached_property
    def inverse(self) -> Block:
        """The inverse basis, in the same memory."""
        turned = (None if part is None else part.T for part in (self.left, self.right))
        inverse = Block(self.size, *turned)
        vars(inverse)["inverse"] = self
        return inverse


@dataclass(frozen=True, eq=False)
class Basis:
    r"""An orthogonal basis U of parameter space, in blocks one after the other.

    Cost of a rotation: :math:`m n (m + n)` multiplications for each block.

    Attributes:
        blocks: of all numbers; none for the unit vectors.
    """

    blocks: tuple[Block, ...] = ()

    def rotate(self, v: Float[Tensor, "*k P"]) -> Float[Tensor, "*k P"]:
        r"""Coordinates :math:`U^\top v`."""
        return self._by_blocks(Block.rotate, v)

    def unrotate(self, c: Float[Tensor, "*k P"]) -> Float[Tensor, "*k P"]:
        """The vector U c that has these coordinates."""
        return self._by_blocks(Block.unrotate, c)

    def _by_blocks(self, turn: Callable[[Block, Tensor], Tensor], v: Tensor) -> Tensor:
        if not self.blocks:
            return v
        parts = v.split_with_sizes(self._sizes, -1)
        return torch.cat([turn(*pair) for pair in zip(self.blocks, parts, strict=True)], -1)

    @cached_property
    def _sizes(self) -> list[int]:
        return [block.size for block in self.blocks]


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
