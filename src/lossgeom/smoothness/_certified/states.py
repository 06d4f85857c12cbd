"""What is known of a value of a network and its Jacobian on l2 balls."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.smoothness._certified.operator_norms import dense_norm


@dataclass(frozen=True, eq=False)
class Block:
    """A matrix of each example, held as its columns, and how far rounding may have moved it."""

    columns: Float[Tensor, "B K ..."]
    error: Float[Tensor, " B"]

    def norm(self) -> Float[Tensor, " B"]:
        """An upper bound of the spectral norm."""
        return dense_norm(self.columns.flatten(2)) + self.error

    def rows(self) -> Float[Tensor, "B ..."]:
        """Upper bounds of the lengths of the rows."""
        lengths = self.columns.square().sum(1).sqrt()
        return lengths + over(self.error, lengths)

    def size(self) -> Float[Tensor, " B"]:
        """The Frobenius norm."""
        size: Tensor = self.columns.flatten(1).norm(dim=1)
        return size + self.error


@dataclass(frozen=True, eq=False)
class Slopes:
    r"""J(x) = diag(d(x)) J_0(x), for a value that comes straight from an activation.

    Attributes:
        scale: upper bounds of abs(d(x)).
        spread: upper bounds of abs(d(x) - d(x')).
        norm: upper bound of ||J_0(x)||.
        variation: upper bound of ||J_0(x) - J_0(x')||.
    """

    scale: Float[Tensor, "B ..."]
    spread: Float[Tensor, "B ..."]
    norm: Float[Tensor, " B"]
    variation: Float[Tensor, " B"]


@dataclass(frozen=True, eq=False)
class State:
    r"""What is known of one value z(x) of a network and its Jacobian J(x), x in the ball.

    Attributes:
        value: at the centre.
        error: how far rounding may have moved that.
        lower: of z on the ball.
        upper: of z on the ball.
        rows: upper bounds of the lengths of the rows of J.
        norm: upper bound of ||J||.
        variation: upper bound of ||J(x) - J(x')||.
        blocks: matrices X with J = X_input + sum_k X_k T_k G_k, where ||T_k|| <= 1 and ||G_k|| is
            at most the gain of k; none where they would be too large.
        slopes: after an activation.
    """

    value: Float[Tensor, "B ..."]
    error: Float[Tensor, "B ..."]
    lower: Float[Tensor, "B ..."]
    upper: Float[Tensor, "B ..."]
    rows: Float[Tensor, "B ..."]
    norm: Float[Tensor, " B"]
    variation: Float[Tensor, " B"]
    blocks: dict[int, Block]
    slopes: Slopes | None = None


def over(numbers: Float[Tensor, " B"], like: Tensor) -> Tensor:
    """One number for each example, to broadcast against a tensor."""
    return numbers.reshape(-1, *[1] * (like.ndim - 1))


def largest(x: Float[Tensor, "B ..."]) -> Float[Tensor, " B"]:
    """Over each example."""
    return x.flatten(1).amax(1)


def total(parts: Iterable[Tensor]) -> Tensor:
    """The sum of one or more tensors."""
    return reduce(torch.add, parts)
