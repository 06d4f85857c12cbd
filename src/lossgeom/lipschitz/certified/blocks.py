"""The known matrices in sums of products with unknown ones, as which Jacobians are written."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lossgeom.linalg.arithmetic import lengths
from lossgeom.linalg.operator_norms import EPSILON, dense_norm, gram_norm
from lossgeom.lipschitz.certified.affine_maps import Affine
from lossgeom.lipschitz.certified.max_pooling import MaxPool
from lossgeom.lipschitz.certified.smooth_maps import Known, SmoothMap

MANY = 1024  # rows and columns of a matrix from which on norms for weights are only estimated
ITERATIONS = 20  # of the power method for such an estimate
FAIR = 1e150  # a weight between its inverse and this lets no number of a block vanish
Key = TypeVar("Key")
PerExample = Float[Tensor, " B"]
Values = Float[Tensor, "B ..."]
Columns = Float[Tensor, "B K ..."]


@dataclass(frozen=True, eq=False)
class Block:
    """A known matrix X of each example, in a product X T G with ||T|| <= 1.

    Attributes:
        columns: of X.
        error: how far rounding may have moved X.
        gain: upper bound of ||G||.
    """

    columns: Columns
    error: PerExample
    gain: PerExample

    @cached_property
    def norm(self) -> PerExample:
        """An upper bound of the spectral norm of X."""
        return dense_norm(self.columns.flatten(2)) + self.error

    def rows(self) -> Values:
        """Upper bounds of the lengths of the rows."""
        rows = lengths(self.columns, 1)
        return rows + over(self.error, rows)

    def lengths(self) -> Float[Tensor, "B K"]:
        """Upper bounds of the lengths of the columns."""
        return lengths(self.columns.flatten(2), 2) + self.error[:, None]

    def size(self) -> PerExample:
        """The Frobenius norm."""
        return lengths(self.columns.flatten(1), 1) + self.error

    def magnitudes(self) -> Columns:
        """Upper bounds of the magnitudes of the entries."""
        return self.columns.abs() + over(self.error, self.columns)

    def mapped(self, layer: Affine | Known) -> Block:
        """The product A X, or D_0 X, whose rounding is at most that of sums of magnitudes."""
        rounding = layer.rounding * layer.absolute_norm * self.size()
        error = layer.norm * self.error + rounding
        return replace(self, columns=layer.linear(self.columns), error=error)

    def at(self, rows: Bool[Tensor, " M"]) -> Block:
        """Some rows of X, flattened."""
        return replace(self, columns=self.columns.flatten(2)[:, :, rows])

    def scaled(self, scale: Values) -> Block:
        """The product diag(scale) X."""
        error = largest(scale.abs()) * (self.error + EPSILON * self.size())
        return replace(self, columns=scale[:, None] * self.columns, error=error)

    def in_parts(self, layer: SmoothMap) -> list[Block]:
        """The rows of each group by themselves, as of so many examples, for each of its parts."""
        groups = self.columns.transpose(1, 2).flatten(0, 1)
        each = self.columns.shape[2]
        error, gain = (x.repeat_interleave(each) for x in (self.error, self.gain))
        return [Block(part, error, gain) for part in layer.split(groups)]

    def pooled(self, pool: MaxPool, places: Tensor, certain: Tensor) -> Block:
        """The rows of the inputs that win for certain, and zeros elsewhere."""
        columns = pool.chosen(self.columns, places, certain)
        return replace(self, columns=columns, error=pool.norm * self.error)


def diagonal(scale: Values, gain: PerExample) -> Block:
    """diag(scale), without the columns that are zero for all examples."""
    flat = scale.flatten(1)
    places = used(scale).nonzero()[:, 0]
    columns = flat.new_zeros(len(flat), len(places), flat.shape[1])
    columns[:, torch.arange(len(places)), places] = flat[:, places]
    return Block(torch.unflatten(columns, 2, scale.shape[1:]), torch.zeros_like(gain), gain)


def used(scale: Values) -> Bool[Tensor, " M"]:
    """Which places of the flattened scale are not zero for all examples."""
    return (scale.flatten(1) != 0).any(0)


def added(x: dict[Key, Block], y: dict[Key, Block]) -> dict[Key, Block]:
    """The blocks of the sum of two Jacobians."""
    blocks = {**x, **y}
    for k in x.keys() & y.keys():
        a, b = x[k], y[k]
        rounding = EPSILON * (a.size() + b.size())
        blocks[k] = Block(a.columns + b.columns, a.error + b.error + rounding, a.gain)
    return blocks


def stacked(parts: Sequence[dict[Key, Block]], sizes: Sequence[int]) -> dict[Key, Block]:
    """The blocks of concatenated values, with zeros where a value has none."""
    blocks: dict[Key, Block] = {}
    for i, part in enumerate(parts):
        around = (sum(sizes[:i]), sum(sizes[i + 1 :]))
        padded = {
            k: replace(b, columns=torch.nn.functional.pad(b.columns.flatten(2), around))
            for k, b in part.items()
        }
        blocks = added(blocks, padded)
    return blocks


def norm_of_sum(blocks: Collection[Block]) -> PerExample:
    r"""An upper bound of the norm of sum_k X_k T_k G_k, with ||T_k|| <= 1, ||G_k|| <= g_k.

    With s = sum_k ||X_k|| g_k and w_k^2 = g_k / ||X_k||, it is the product of a row of blocks
    and a column, hence at most ||(w_1 X_1, w_2 X_2, ...)|| sqrt(s), which is at most s.
    """
    rows = next(block.columns[0, 0].numel() for block in blocks)
    if MANY < rows <= sum(block.columns.shape[1] for block in blocks):
        return _norm_of_large_sum(blocks, rows)
    s = torch.stack([block.norm * block.gain for block in blocks]).sum(0)
    if len(blocks) == 1:
        return s
    weights = torch.stack([_weight(block.gain, block.norm) for block in blocks])
    scaled = [w[:, None, None] * b.columns.flatten(2) for w, b in zip(weights, blocks, strict=True)]
    error = (weights * torch.stack([block.error for block in blocks])).sum(0)
    row = (dense_norm(torch.cat(scaled, dim=1)) + error) * s.sqrt()
    return torch.where(_fair(weights), torch.fmin(s, row), s)


def _norm_of_large_sum(blocks: Collection[Block], rows: int) -> PerExample:
    """The same from one block at a time, with estimates in the weights: any weights are right."""
    gain = next(block.gain for block in blocks)
    error, s, weights = torch.zeros_like(gain), torch.zeros_like(gain), []
    gram = gain.new_zeros(len(gain), rows, rows)
    for block in blocks:
        X = block.columns.flatten(2)
        scale = X.abs().amax((1, 2))
        X = X / torch.where(scale > 0, scale, 1)[:, None, None]
        squares = X.mT @ X
        norm = scale * _estimated_norm(squares) + block.error
        weights.append(_weight(block.gain, norm))
        gram = gram + (weights[-1] * scale).square()[:, None, None] * squares
        error = error + weights[-1] * block.error
        s = s + block.gain * norm
    row = gram_norm(gram, sum(block.columns.shape[1] for block in blocks)) + error
    bound = (row * s.sqrt()).nan_to_num(math.inf, math.inf)
    return torch.where(_fair(torch.stack(weights)), bound, math.inf)


def _estimated_norm(gram: Float[Tensor, "B M M"]) -> PerExample:
    """The square root of the largest eigenvalue by the power method, from its largest column."""
    largest = gram.diagonal(dim1=1, dim2=2).argmax(1)
    v = gram[torch.arange(len(gram)), largest]
    for _ in range(ITERATIONS):
        size = lengths(v)
        v = (gram @ (v / torch.where(size > 0, size, 1)[:, None])[..., None])[..., 0]
    return lengths(v).sqrt()


def _weight(gain: PerExample, norm: PerExample) -> PerExample:
    """The square root of gain over norm; 0 only for what is zero."""
    weight = (gain.sqrt() / norm.sqrt()).clamp(min=1 / (2 * FAIR))
    return torch.where((gain > 0) & (norm > 0), weight, 0)


def _fair(weights: Float[Tensor, "L B"]) -> Bool[Tensor, " B"]:
    return ((weights < FAIR) & ((weights == 0) | (weights > 1 / FAIR))).all(0)


def over(numbers: Tensor, like: Tensor) -> Tensor:
    """Reshape numbers of the first dimensions of a tensor to broadcast against it."""
    return numbers.reshape(*numbers.shape, *[1] * (like.ndim - numbers.ndim))


def largest(x: Values) -> PerExample:
    """The largest number of each example."""
    return x.flatten(1).amax(1)
