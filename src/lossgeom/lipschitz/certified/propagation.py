"""What is known of the values of a network, passed on from layer to layer."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.linalg.operator_norms import lengths
from lossgeom.lipschitz.certified.activations import Activation
from lossgeom.lipschitz.certified.affine_maps import Affine
from lossgeom.lipschitz.certified.graph import Concatenation, Operation
from lossgeom.lipschitz.certified.max_pooling import MaxPool
from lossgeom.lipschitz.certified.slope_deviations import Deviations
from lossgeom.lipschitz.certified.states import (
    INPUT,
    Block,
    Slopes,
    State,
    added,
    diagonal,
    largest,
    over,
    stacked,
    total,
)

MARGIN = 1 + 1e-9  # for the rounding of sums and products of numbers that are not negative
ROUNDING = 2e-11  # of a sum of up to 10^5 numbers, relative to the sum of their magnitudes


@dataclass(frozen=True, eq=False)
class Ball:
    """A ball round every example of a batch, on which the values of a network are bounded."""

    radius: Float[Tensor, " B"]
    with_blocks: bool
    deviations: Deviations = field(default_factory=Deviations)

    def start(self, x: Float[Tensor, "B ..."]) -> State:
        """The input itself."""
        none, one = x.new_zeros(len(x)), x.new_ones(len(x))
        everywhere = torch.full_like(x, math.inf)
        blocks, entries = {}, None
        if self.with_blocks:
            D = math.prod(x.shape[1:])
            unit = torch.eye(D).to(x).reshape(1, D, *x.shape[1:]).expand(len(x), D, *x.shape[1:])
            blocks[INPUT], entries = Block(unit, none), torch.zeros_like(unit)
        error, ones = ROUNDING * x.abs(), torch.ones_like(x)
        return self._boxed(
            State(x, error, -everywhere, everywhere, ones, one, none, blocks, entries)
        )

    def step(self, operation: Operation, before: list[State], number: int) -> State:
        """The result of an operation, which has a number of its own."""
        match operation:
            case Affine():
                after = self._affine(operation, before[0])
            case Activation():
                after = self._activation(operation, before[0], number)
            case MaxPool():
                after = self._max_pool(operation, before[0], number)
            case Concatenation():
                after = _concatenated(before)
            case _:
                after = _sum(*before)
        return self._boxed(after)

    def _boxed(self, state: State) -> State:
        """With the bounds of the value that follow from the lengths of the Jacobian's rows.

        The ball is convex, so abs(z_i(x) - z_i(x0)) <= r max ||J_i||, by the mean value theorem.
        """
        rows = torch.minimum(state.rows, over(state.norm, state.rows))
        if state.entries is not None:
            gains = {k: self.deviations.gain(k, state.norm) for k in state.blocks}
            paths = total(b.rows() * over(gains[k], rows) for k, b in state.blocks.items())
            entries = state.blocks[INPUT].largest_entries() + state.entries
            rows = torch.minimum(rows, torch.fmin(paths, lengths(entries, 1)))
        reach = (over(self.radius, rows) * rows + state.error) * MARGIN
        reach = reach.nan_to_num(math.inf, math.inf)
        value = state.value.nan_to_num()
        everywhere = over(self.radius, value).isinf()
        lower = torch.fmax(state.lower, value - reach).masked_fill(everywhere, -math.inf)
        upper = torch.fmin(state.upper, value + reach).masked_fill(everywhere, math.inf)
        return replace(state, rows=rows, lower=lower, upper=upper)

    def _affine(self, layer: Affine, before: State) -> State:
        norm, variation = layer.norm * before.norm, layer.norm * before.variation
        scale, base = torch.ones_like(before.rows), before.norm
        if before.slopes is not None:
            scale, base = before.slopes.scale, before.slopes.norm
            scaled, spread = layer.scaled_norm(scale), layer.scaled_norm(before.slopes.spread)
            norm = torch.minimum(norm, scaled * base)
            variation = torch.minimum(variation, scaled * before.slopes.variation + spread * base)
        rows = layer.row_norms(scale)
        rows = torch.minimum(rows * over(base, rows), layer.absolute(before.rows))
        middle, half = (before.lower + before.upper) / 2, (before.upper - before.lower) / 2
        centre, reach = layer.linear(middle) + layer.bias, layer.absolute(half)
        rounding = ROUNDING * (layer.absolute(middle.abs() + half) + layer.magnitude)
        error = layer.absolute(before.error) + ROUNDING * (
            layer.absolute(before.value.abs()) + layer.magnitude
        )
        return State(
            layer.linear(before.value) + layer.bias,
            error,
            centre - reach - rounding,
            centre + reach + rounding,
            rows,
            norm,
            variation,
            {k: block.mapped(layer) for k, block in before.blocks.items()},
            None if before.entries is None else layer.absolute(before.entries),
        )

    def _activation(self, function: Activation, before: State, number: int) -> State:
        least, most = function.slopes(before.lower, before.upper)
        scale, spread = torch.maximum(least.abs(), most.abs()), most - least
        value = function.value.function(before.value)
        rounding = function.rounding * (1 + before.value.abs()) + ROUNDING * value.abs()
        lower, upper = function.values(before.lower, before.upper)
        blocks = {k: block.scaled((least + most) / 2) for k, block in before.blocks.items()}
        entries = before.entries
        if entries is not None:
            middle = before.blocks[INPUT].largest_entries()
            entries = scale[:, None] * entries + (spread / 2)[:, None] * middle
        if before.blocks and spread.any():
            root = (spread / 2).sqrt()
            self.deviations.add(number, before, root, function.bend(before.lower, before.upper))
            blocks[number] = diagonal(root)
        return State(
            value,
            function.lipschitz * before.error + rounding,
            lower,
            upper,
            scale * before.rows,
            largest(scale) * before.norm,
            largest(scale) * before.variation + largest(spread) * before.norm,
            blocks,
            entries,
            Slopes(scale, spread, before.norm, before.variation),
        )

    def _max_pool(self, pool: MaxPool, before: State, number: int) -> State:
        places, certain = pool.winners(before.lower, before.upper)
        uncertain = (~certain).double().reshape(-1, *pool.output_shape)
        change = pool.difference_norm * largest(uncertain) * before.norm
        blocks = {k: b.chosen(pool, places, certain) for k, b in before.blocks.items()}
        entries = before.entries
        if entries is not None:
            known = pool.chosen(entries, places, certain)
            wholly = before.blocks[INPUT].largest_entries() + entries
            entries = known + uncertain[:, None] * pool.columnwise(wholly)
        if before.blocks and uncertain.any():
            touched = before.scaled(pool.touched(~certain).double())
            gain = pool.norm * self.deviations.norm(touched)
            self.deviations.add_jumps(number, before, uncertain, gain)
            blocks[number] = diagonal(uncertain)
        return State(
            pool(before.value),
            pool(before.error),
            pool(before.lower),
            pool(before.upper),
            pool(before.rows),
            pool.norm * before.norm,
            pool.norm * before.variation + change,
            blocks,
            entries,
        )


def _sum(x: State, y: State) -> State:
    value = x.value + y.value
    lower, upper = x.lower + y.lower, x.upper + y.upper
    return State(
        value,
        x.error + y.error + ROUNDING * value.abs(),
        lower - ROUNDING * lower.abs(),
        upper + ROUNDING * upper.abs(),
        x.rows + y.rows,
        x.norm + y.norm,
        x.variation + y.variation,
        added(x.blocks, y.blocks),
        None if x.entries is None or y.entries is None else x.entries + y.entries,
    )


def _concatenated(states: list[State]) -> State:
    """Values after one another, each flattened, with Jacobians below one another."""

    def joined(parts: Iterable[Tensor]) -> Tensor:
        return torch.cat([part.flatten(1) for part in parts], dim=1)

    entries = [state.entries.flatten(2) for state in states if state.entries is not None]
    return State(
        joined(state.value for state in states),
        joined(state.error for state in states),
        joined(state.lower for state in states),
        joined(state.upper for state in states),
        joined(state.rows for state in states),
        lengths(torch.stack([state.norm for state in states]), 0),
        lengths(torch.stack([state.variation for state in states]), 0),
        stacked([state.blocks for state in states], [state.value[0].numel() for state in states]),
        torch.cat(entries, dim=2) if entries else None,
    )
