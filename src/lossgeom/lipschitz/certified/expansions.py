"""Jacobians on balls, expanded in how far slopes deviate from the middle of their intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.linalg.arithmetic import lengths
from lossgeom.linalg.operator_norms import dense_norm
from lossgeom.lipschitz.certified.affine_maps import Affine
from lossgeom.lipschitz.certified.blocks import (
    Block,
    Columns,
    PerExample,
    Values,
    added,
    diagonal,
    largest,
    norm_of_sum,
    over,
    stacked,
    used,
)
from lossgeom.lipschitz.certified.max_pooling import MaxPool
from lossgeom.lipschitz.certified.smooth_maps import Known, Linearised, Parts, SmoothMap

LARGEST = 2**26  # numbers of the expansion of one value of a chunk of examples, 512 MiB
KEPT = 2**22  # numbers of that of one example, above which second derivatives are not bounded


@dataclass(frozen=True, eq=False)
class Deviation:
    r"""The derivative of a layer less a known one: D = C + S T S' with T at most 1 in norm.

    Attributes:
        norm: upper bound of ||J||, for the Jacobian J before the layer.
        before: the expansion of J; ``None`` where second derivatives are not bounded.
        root: the diagonal of S, which for activations is S', too.
        columns: upper bounds of the lengths of the columns of S' times the derivative of the value
            before the layer in the deviating columns of each earlier one.
        bend: what the lengths of the columns of a derivative after the layer give, with its second
            derivative, for :meth:`Expansion.lipschitz`; ``None`` where those are not bounded.
    """

    norm: PerExample
    before: Expansion | None
    root: Values
    columns: dict[Deviation, Float[Tensor, "B K"]]
    bend: Callable[[Values], Values] | None

    def lipschitz(self, columns: Float[Tensor, "B K"]) -> PerExample:
        """What this layer adds to :meth:`Expansion.lipschitz`, from the columns that follow it."""
        if self.before is None or self.bend is None:
            return torch.where(largest(self.root) > 0, math.inf, 0.0)
        factors, root = torch.zeros_like(self.root).flatten(1), self.root.flatten(1)
        factors[:, used(root)] = columns
        lengths_after = torch.where(root > 0, factors / root, 0).view_as(self.root)
        return self.before.scaled_norm(self.bend(lengths_after).sqrt(), self.norm).square()


@dataclass(frozen=True, eq=False)
class Expansion:
    r"""A Jacobian on a ball as J = X_input + sum_k X_k T_k G_k, with ||T_k|| <= 1.

    Attributes:
        blocks: the X, by the deviations k; that of the input is the block of ``None``.
        entries: upper bounds of abs(J - X_input), entry by entry.
    """

    blocks: dict[Deviation | None, Block]
    entries: Columns

    @classmethod
    def of_input(cls, x: Values) -> Expansion:
        """The expansion of the identity, the Jacobian of the input."""
        unit = diagonal(torch.ones_like(x), x.new_ones(len(x)))
        return cls({None: unit}, torch.zeros_like(unit.columns))

    # From layer to layer

    def mapped(self, layer: Affine | Known) -> Expansion:
        """The expansion of A J, or of D_0 J with the bounds of entries for D J."""
        blocks = {k: block.mapped(layer) for k, block in self.blocks.items()}
        return Expansion(blocks, layer.absolute(self.entries))

    def scaled(self, scale: Values) -> Expansion:
        """The expansion of diag(scale) J, without the rows that are zero for all examples."""
        rows = used(scale)
        scale = scale.flatten(1)[:, rows]
        blocks = {k: block.at(rows).scaled(scale) for k, block in self.blocks.items()}
        return Expansion(blocks, scale.abs()[:, None] * self.entries.flatten(2)[:, :, rows])

    def activated(
        self, least: Tensor, most: Tensor, curvature: Tensor, norm: PerExample
    ) -> Expansion | None:
        """diag(d) J with slopes d between two bounds, if norm is an upper bound of ||J||."""
        half, steepest = (most - least) / 2, torch.maximum(least.abs(), most.abs())
        if not fits([self], half.numel(), half):
            return None
        blocks = {k: block.scaled((least + most) / 2) for k, block in self.blocks.items()}
        entries = steepest[:, None] * self.entries + half[:, None] * self.blocks[None].magnitudes()
        if half.any():
            root = half.sqrt()
            scaled = self.scaled(root)
            gain = torch.minimum(largest(root) * norm, scaled.norm())
            smooth = bool((half.bool() & curvature.isfinite()).any())
            deviation = self._deviation(norm, root, scaled, curvature.mul if smooth else None)
            blocks[deviation] = diagonal(root, gain)
        return Expansion(blocks, entries)

    def _deviation(
        self,
        norm: PerExample,
        root: Values,
        scaled: Expansion,
        bend: Callable[[Values], Values] | None,
    ) -> Deviation:
        """Keep what bounds second derivatives, where it is small and earlier ones are bounded."""
        unbounded = [k.root for k in self._deviating() if k.before is None]
        lost = any(bool(root.flatten(1).any(1).all()) for root in unbounded)
        if bend is None or lost or self.entries[0, 0].numel() * width([self]) > KEPT:
            return Deviation(norm, None, root, {}, None)
        return Deviation(norm, self, root, scaled.columns(), bend)

    def bent(self, layer: Linearised, norm: PerExample) -> Expansion | None:
        """D J for D near a known one, if norm is an upper bound of ||J||."""
        if not fits([self], layer.out.numel(), layer.out):
            return None
        after = self.mapped(layer)
        inner = self
        if layer.inner is not None:
            inner, norm = self.mapped(layer.inner), layer.inner.norm * norm
        known = lengths(layer.into[:, None] * inner.blocks[None].magnitudes(), -1)
        moved = layer.out[:, None] * known[..., None]
        moved = moved if layer.outer is None else layer.outer.absolute(moved)
        after = replace(after, entries=after.entries + moved)
        if not layer.out.any():
            return after
        scaled = inner.scaled(layer.into)
        gain = torch.fmin(largest(layer.into) * norm, scaled.norm())
        block = diagonal(layer.out, gain)
        block = block if layer.outer is None else block.mapped(layer.outer)
        deviation = inner._deviation(norm, layer.out, scaled, layer.bend)
        return replace(after, blocks={**after.blocks, deviation: block})

    def pooled(
        self, pool: MaxPool, places: Tensor, certain: Tensor, norm: PerExample
    ) -> Expansion | None:
        """The rows of J that win for certain, and deviations where several may win."""
        uncertain = (~certain).double().reshape(-1, *pool.output_shape)
        if not fits([self], uncertain.numel(), uncertain):
            return None
        blocks = {k: block.pooled(pool, places, certain) for k, block in self.blocks.items()}
        entries = pool.chosen(self.entries, places, certain)
        entries = entries + uncertain[:, None] * pool.columnwise(self.magnitudes())
        if uncertain.any():
            gain = pool.norm * self.scaled_norm(pool.touched(~certain).double(), norm)
            blocks[Deviation(norm, None, uncertain, {}, None)] = diagonal(uncertain, gain)
        return Expansion(blocks, entries)

    def __add__(self, other: Expansion) -> Expansion:
        return Expansion(added(self.blocks, other.blocks), self.entries + other.entries)

    @classmethod
    def concatenated(cls, parts: Sequence[Expansion]) -> Expansion:
        """The expansion of flattened Jacobians below one another."""
        entries = [part.entries.flatten(2) for part in parts]
        sizes = [part.shape[2] for part in entries]
        return cls(stacked([part.blocks for part in parts], sizes), torch.cat(entries, dim=2))

    # What is known of J

    def magnitudes(self) -> Columns:
        """Upper bounds of abs(J), entry by entry."""
        return self.blocks[None].magnitudes() + self.entries

    def rows(self) -> Values:
        """Upper bounds of the lengths of the rows of J."""
        paths = [block.rows() for block in self.blocks.values()]
        paths = [p * over(b.gain, p) for p, b in zip(paths, self.blocks.values(), strict=True)]
        return torch.fmin(torch.stack(paths).sum(0), lengths(self.magnitudes(), 1))

    def norm(self) -> PerExample:
        """An upper bound of ||J||."""
        known = norm_of_sum(self.blocks.values())
        if self._entries_are_above(known):
            return known
        entrywise = self.blocks[None].norm + _norm(self.entries)
        return torch.fmin(known, torch.fmin(entrywise, _norm(self.magnitudes())))

    def _entries_are_above(self, known: PerExample) -> bool:
        """Whether what the bounds of entries add up to is above another bound of their norm."""
        sums = self.entries.flatten(2).sum(1)
        return bool((lengths(sums) >= known * math.sqrt(self.entries.shape[1])).all())

    def part_norms(self, layer: SmoothMap) -> Parts:
        """Upper bounds of the norms of the rows of J in each part of the groups of a layer."""
        blocks = [block.in_parts(layer) for block in self.blocks.values()]
        norms = torch.stack([norm_of_sum(parts) for parts in zip(*blocks, strict=True)], -1)
        return torch.unflatten(norms, 0, self.entries.shape[::2][:2])

    def scaled_norm(self, scale: Values, norm: PerExample) -> PerExample:
        """An upper bound of ||diag(scale) J||, also from one of ||J||."""
        if not scale.any():
            return torch.zeros_like(norm)
        return torch.fmin(largest(scale.abs()) * norm, self.scaled(scale).norm())

    def _deviating(self) -> dict[Deviation, Block]:
        return {k: block for k, block in self.blocks.items() if k is not None}

    def deviation_norm(self) -> PerExample:
        """An upper bound of ||J - X_input||."""
        blocks = self._deviating().values()
        if not blocks:
            return torch.zeros_like(self.blocks[None].error)
        known = norm_of_sum(blocks)
        return known if self._entries_are_above(known) else torch.fmin(known, _norm(self.entries))

    def columns(self) -> dict[Deviation, Float[Tensor, "B K"]]:
        r"""Upper bounds of the lengths of the columns of derivatives with respect to what deviates.

        That in the columns of k is X_k + sum_m X_m T_m Y_mk over the layers m between, by the same
        expansion as for the input; the columns of the Y_mk are known.
        """
        columns = {k: block.lengths() for k, block in self._deviating().items()}
        for m, block in self._deviating().items():
            for k, between in m.columns.items():
                there = columns.get(k, torch.zeros_like(between))
                columns[k] = there + block.norm[:, None] * between
        return columns

    def lipschitz(self) -> PerExample:
        r"""An upper bound of the Lipschitz constant of J as a function of the input.

        Its derivative along h is sum_k Y_k diag(phi''(z_k) J_k h) J_k, with the derivative Y_k in
        the activations of layer k. For unit vectors u, h and w, with c the columns of Y_k,

        .. math:: u^T (DJ[h]) w \le \sum_k \sum_i |c_{ki}| |\phi''_{ki}| |J_k h|_i |J_k w|_i
            \le \sum_k \| \mathrm{diag}(|c_k| |\phi''_k|)^{1/2} J_k \|^2.
        """
        parts = [k.lipschitz(columns) for k, columns in self.columns().items()]
        return torch.stack([torch.zeros_like(self.blocks[None].error), *parts]).sum(0)


def width(expansions: Sequence[Expansion]) -> int:
    """How many columns there are in the expansion of a value that follows from some others."""
    blocks = {k: block for each in expansions for k, block in each.blocks.items()}
    return sum(block.columns.shape[1] for block in (blocks[None], *blocks.values()))


def fits(expansions: Sequence[Expansion], numbers: int, root: Values | None = None) -> bool:
    """Whether the expansion of a value, of so many numbers in a chunk, is not too large.

    The places that are not zero in the root of its deviation have a column each.
    """
    deviating = 0 if root is None else int(used(root).sum())
    return numbers * (width(expansions) + deviating) <= LARGEST


def _norm(entries: Columns) -> PerExample:
    return dense_norm(entries.flatten(2))
