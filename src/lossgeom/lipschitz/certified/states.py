"""What is known of a value of a network and its Jacobian on l2 balls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.linalg.operator_norms import EPSILON, dense_norm, lengths
from lossgeom.lipschitz.certified.affine_maps import Affine
from lossgeom.lipschitz.certified.max_pooling import MaxPool

INPUT = -1  # the block that the input itself comes through


@dataclass(frozen=True, eq=False)
class Block:
    """A matrix of each example, held as its columns, and how far rounding may have moved it."""

    columns: Float[Tensor, "B K ..."]
    error: Float[Tensor, " B"]

    @cached_property
    def norm(self) -> Float[Tensor, " B"]:
        """An upper bound of the spectral norm."""
        return dense_norm(self.columns.flatten(2)) + self.error

    def rows(self) -> Float[Tensor, "B ..."]:
        """Upper bounds of the lengths of the rows."""
        rows = lengths(self.columns, 1)
        return rows + over(self.error, rows)

    def lengths(self) -> Float[Tensor, "B K"]:
        """Upper bounds of the lengths of the columns."""
        return lengths(self.columns.flatten(2), 2) + self.error[:, None]

    def size(self) -> Float[Tensor, " B"]:
        """The Frobenius norm."""
        return lengths(self.columns.flatten(1), 1) + self.error

    def largest_entries(self) -> Float[Tensor, "B K ..."]:
        """Upper bounds of the magnitudes of the entries."""
        return self.columns.abs() + over(self.error, self.columns)

    def mapped(self, layer: Affine) -> Block:
        """A X; rounding is at most that of sums of magnitudes, in the Frobenius norm."""
        rounding = layer.rounding * layer.absolute_norm * self.size()
        return Block(layer.linear(self.columns), layer.norm * self.error + rounding)

    def scaled(self, scale: Float[Tensor, "B ..."]) -> Block:
        """diag(scale) X."""
        error = largest(scale.abs()) * (self.error + EPSILON * self.size())
        return Block(scale[:, None] * self.columns, error)

    def chosen(self, pool: MaxPool, places: Tensor, certain: Tensor) -> Block:
        """The rows of the inputs that win for certain, and zeros elsewhere."""
        return Block(pool.chosen(self.columns, places, certain), pool.norm * self.error)


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
        entries: upper bounds of abs(J - X_input), entry by entry, where there are blocks.
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
    entries: Float[Tensor, "B D ..."] | None
    slopes: Slopes | None = None

    def scaled(self, scale: Float[Tensor, "B ..."]) -> State:
        """With diag(scale) J in the place of J, as far as its norm is concerned."""
        return replace(
            self,
            norm=largest(scale.abs()) * self.norm,
            blocks={k: block.scaled(scale) for k, block in self.blocks.items()},
            entries=None if self.entries is None else scale.abs()[:, None] * self.entries,
        )


def diagonal(scale: Float[Tensor, "B ..."]) -> Block:
    """diag(scale), without the columns that are zero for all examples."""
    flat = scale.flatten(1)
    columns = torch.diag_embed(flat)[:, (flat != 0).any(0)]
    return Block(torch.unflatten(columns, 2, scale.shape[1:]), flat.new_zeros(len(flat)))


def added(x: dict[int, Block], y: dict[int, Block]) -> dict[int, Block]:
    """The blocks of a sum."""
    blocks = {**x, **y}
    for k in x.keys() & y.keys():
        a, b = x[k], y[k]
        rounding = EPSILON * (a.size() + b.size())
        blocks[k] = Block(a.columns + b.columns, a.error + b.error + rounding)
    return blocks


def stacked(parts: Sequence[dict[int, Block]], sizes: Sequence[int]) -> dict[int, Block]:
    """The blocks of values that come after one another, with zeros where there is none."""
    blocks: dict[int, Block] = {}
    for i, part in enumerate(parts):
        around = (sum(sizes[:i]), sum(sizes[i + 1 :]))
        padded = {
            k: Block(torch.nn.functional.pad(block.columns.flatten(2), around), block.error)
            for k, block in part.items()
        }
        blocks = added(blocks, padded)
    return blocks


def over(numbers: Float[Tensor, " B"], like: Tensor) -> Tensor:
    """One number for each example, to broadcast against a tensor."""
    return numbers.reshape(-1, *[1] * (like.ndim - 1))


def largest(x: Float[Tensor, "B ..."]) -> Float[Tensor, " B"]:
    """Over each example."""
    return x.flatten(1).amax(1)


def total(parts: Iterable[Tensor]) -> Tensor:
    """The sum of one or more tensors."""
    return reduce(torch.add, parts)
