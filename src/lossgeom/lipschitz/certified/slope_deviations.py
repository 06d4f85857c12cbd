"""Deviations of slopes from the middle of their intervals, and what they do to Jacobians."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.linalg.operator_norms import dense_norm
from lossgeom.lipschitz.certified.states import INPUT, Block, State, largest, total

FAIR = 1e150  # weights up to which, and down to whose inverse, no number of a block vanishes
Lengths = dict[int, Float[Tensor, "B K"]]


@dataclass(frozen=True, eq=False)
class Deviation:
    r"""Of one layer: D = C + S T S' with T at most 1 in norm; S = S' = diag(root) for activations.

    Attributes:
        gain: upper bounds of ||G|| = ||S' J||, for the Jacobian J before the layer.
        root: the diagonal of S.
        columns: upper bounds of the lengths of the columns of S' times the derivative of the value
            before the layer in the deviating columns of each earlier one.
        before: the value before the layer.
        curvature: upper bounds of the second derivative; ``None`` for layers that only have jumps.
    """

    gain: Float[Tensor, " B"]
    root: Float[Tensor, "B ..."]
    columns: Lengths
    before: State
    curvature: Float[Tensor, "B ..."] | None

    def lipschitz_scale(self, lengths: Float[Tensor, "B K"]) -> Float[Tensor, "B ..."]:
        """The roots of the second derivatives by the lengths of the columns that follow."""
        flat, root = torch.zeros_like(self.root).flatten(1), self.root.flatten(1)
        flat[:, (root != 0).any(0)] = lengths
        curvature = torch.full_like(root, math.inf) if self.curvature is None else self.curvature
        return torch.where(root > 0, flat * curvature.flatten(1) / root, 0).sqrt()


@dataclass(frozen=True, eq=False)
class Deviations:
    """Those met so far, by the number of the layer."""

    met: dict[int, Deviation] = field(default_factory=dict)

    def gain(self, k: int, like: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """By which the block of a layer, or of the input, is multiplied."""
        return torch.ones_like(like) if k == INPUT else self.met[k].gain

    def add(self, number: int, before: State, root: Tensor, curvature: Tensor) -> None:
        """Those of an activation."""
        scaled = before.scaled(root)
        gain, columns = self.norm(scaled), self.columns(scaled.blocks)
        self.met[number] = Deviation(gain, root, columns, before, curvature)

    def add_jumps(self, number: int, before: State, places: Tensor, gain: Tensor) -> None:
        """Those of a layer whose Jacobian jumps at some places."""
        self.met[number] = Deviation(gain, places, {}, before, None)

    def norm(self, state: State) -> Float[Tensor, " B"]:
        """An upper bound of ||J||, the smallest of all that there are."""
        if state.entries is None:
            return state.norm
        middle = state.blocks[INPUT]
        entrywise = torch.fmin(
            middle.norm + _size(state.entries), _size(middle.largest_entries() + state.entries)
        )
        return torch.minimum(state.norm, torch.fmin(entrywise, self.combined(state.blocks)))

    def spread(self, state: State) -> Float[Tensor, " B"]:
        """An upper bound of ||J(x) - X_input||; infinite where there are no blocks."""
        if state.entries is None:
            return torch.full_like(state.norm, math.inf)
        deviating = {k: block for k, block in state.blocks.items() if k != INPUT}
        if not deviating:
            return torch.zeros_like(state.norm)
        return torch.fmin(self.combined(deviating), _size(state.entries))

    def combined(self, blocks: dict[int, Block]) -> Float[Tensor, " B"]:
        r"""An upper bound of the norm of sum_k X_k T_k G_k, with ||T_k|| <= 1, ||G_k|| <= g_k.

        With s = sum_k ||X_k|| g_k and w_k^2 = g_k / ||X_k||, it is the product of a row of blocks
        and a column, hence at most ||(w_1 X_1, w_2 X_2, ...)|| sqrt(s), which is at most s.
        """
        norms = {k: block.norm for k, block in blocks.items()}
        gains = {k: self.gain(k, n) for k, n in norms.items()}
        s = total(norms[k] * gains[k] for k in blocks)
        if len(blocks) == 1:
            return s
        weights = {k: _weight(gains[k], n) for k, n in norms.items()}
        fair = torch.stack([(w < FAIR) & ((w == 0) | (w > 1 / FAIR)) for w in weights.values()])
        scaled = [weights[k][:, None, None] * b.columns.flatten(2) for k, b in blocks.items()]
        error = total(weights[k] * block.error for k, block in blocks.items())
        row = (dense_norm(torch.cat(scaled, dim=1)) + error) * s.sqrt()
        return torch.where(fair.all(0), torch.fmin(s, row), s)

    def columns(self, blocks: dict[int, Block]) -> Lengths:
        r"""Upper bounds of the lengths of the columns of derivatives in what deviates.

        That in the columns of k is X_k + sum_m X_m T_m Y_mk over the layers m between, by the same
        expansion as for the input; the columns of the Y_mk are known.
        """
        deviating = {k: block for k, block in blocks.items() if k != INPUT}
        lengths = {k: block.lengths() for k, block in deviating.items()}
        for m, block in deviating.items():
            for k, between in self.met[m].columns.items():
                there = lengths.get(k, torch.zeros_like(between))
                lengths[k] = there + block.norm[:, None] * between
        return lengths

    def lipschitz(self, state: State) -> Float[Tensor, " B"]:
        r"""An upper bound of the Lipschitz constant of the Jacobian.

        Its derivative along h is sum_k Y_k diag(phi''(z_k) J_k h) J_k, with the derivative Y_k in
        the activations of layer k. For unit vectors u, h and w, with c the columns of Y_k,

        .. math:: u^T (DJ[h]) w \le \sum_k \sum_i |c_{ki}| |\phi''_{ki}| |J_k h|_i |J_k w|_i
            \le \sum_k \| \mathrm{diag}(|c_k| |\phi''_k|)^{1/2} J_k \|^2.
        """
        lipschitz = torch.zeros_like(state.norm)
        for k, lengths in self.columns(state.blocks).items():
            layer = self.met[k]
            scale = layer.lipschitz_scale(lengths)
            if layer.curvature is None:
                part = largest(scale)
            else:
                part = self.norm(layer.before.scaled(scale.view_as(layer.root))).square()
            lipschitz = lipschitz + part
        return lipschitz


def _weight(gain: Float[Tensor, " B"], norm: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """The root of their quotient; 0 only for what is zero."""
    weight = (gain.sqrt() / norm.sqrt()).clamp(min=1 / (2 * FAIR))
    return torch.where((gain > 0) & (norm > 0), weight, 0)


def _size(entries: Float[Tensor, "B K ..."]) -> Float[Tensor, " B"]:
    return dense_norm(entries.flatten(2))
