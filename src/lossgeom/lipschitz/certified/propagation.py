"""What is known of the values of a network on balls, passed on from layer to layer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lossgeom.linalg.arithmetic import lengths
from lossgeom.lipschitz.certified.activations import Activation
from lossgeom.lipschitz.certified.affine_maps import Affine, Shape
from lossgeom.lipschitz.certified.blocks import PerExample, Values, largest, over
from lossgeom.lipschitz.certified.expansions import Expansion, fits
from lossgeom.lipschitz.certified.graph import Concatenation, Graph, Operation
from lossgeom.lipschitz.certified.max_pooling import MaxPool
from lossgeom.lipschitz.certified.smooth_maps import ROUNDING, Box, SmoothMap

MARGIN = 1 + 1e-9  # for the rounding of sums and products of numbers that are not negative


@dataclass(frozen=True, eq=False)
class Slopes:
    r"""J(x) = diag(d(x)) J_0(x), for a value that comes straight from an activation.

    Attributes:
        before: what is known of J_0, but for its expansion.
        scale: upper bounds of abs(d(x)).
        spread: upper bounds of abs(d(x) - d(x')).
    """

    before: State
    scale: Values
    spread: Values


@dataclass(frozen=True, eq=False)
class State:
    r"""What is known of one value z(x) of a network and its Jacobian J(x), x in the ball.

    Attributes:
        value: at the centre.
        error: how far rounding may have moved that.
        lower: of z on the ball.
        upper: of z on the ball.
        rows: upper bounds of the lengths of the rows of J.
        norm: upper bound of ||J|| from the norms of layers.
        variation: upper bound of ||J(x) - J(x')|| from the norms of layers.
        expansion: of J; ``None`` where it would be too large.
        slopes: after an activation.
    """

    value: Values
    error: Values
    lower: Values
    upper: Values
    rows: Values
    norm: PerExample
    variation: PerExample
    expansion: Expansion | None
    slopes: Slopes | None = None


def propagated(graph: Graph, x: Values, radius: PerExample, *, expanded: bool) -> State:
    """What is known of the outputs of a network on balls round some inputs."""
    everywhere, ones = torch.full_like(x, math.inf), torch.ones_like(x)
    none, one = x.new_zeros(len(x)), x.new_ones(len(x))
    expansion = Expansion.of_input(x) if expanded else None
    start = State(x, ROUNDING * x.abs(), -everywhere, everywhere, ones, one, none, expansion)
    states = {0: _boxed(start, radius)}
    last = {i: n for n, step in enumerate(graph.steps, start=1) for i in step.arguments}
    for n, step in enumerate(graph.steps, start=1):
        before = _fitting([states[i] for i in step.arguments], step.shape)
        states[n] = _boxed(_after(step.operation, before, radius), radius)
        states = {i: state for i, state in states.items() if i == n or last[i] > n}
    return states[len(graph.steps)]


def _fitting(states: list[State], shape: Shape) -> list[State]:
    """Leave out the expansions where that of a result of some shape would be too large."""
    expansions = [state.expansion for state in states if state.expansion is not None]
    numbers = len(states[0].value) * math.prod(shape)
    if len(expansions) == len(states) and fits(expansions, numbers):
        return states
    return [replace(state, expansion=None) for state in states]


def _boxed(state: State, radius: PerExample) -> State:
    """Add the bounds of the value that follow from the lengths of the Jacobian's rows.

    The ball is convex, so abs(z_i(x) - z_i(x0)) <= r max ||J_i||, by the mean value theorem.
    """
    rows = torch.minimum(state.rows, over(state.norm, state.rows))
    if state.expansion is not None:
        rows = torch.fmin(rows, state.expansion.rows())
    reach = (over(radius, rows) * rows + state.error) * MARGIN
    reach = reach.nan_to_num(math.inf, math.inf)
    value = state.value.nan_to_num()
    lower = torch.fmax(state.lower, value - reach)
    upper = torch.fmin(state.upper, value + reach)
    return replace(state, rows=rows, lower=lower, upper=upper)


def _after(operation: Operation, before: list[State], radius: PerExample) -> State:
    match operation:
        case Affine():
            return _affine(operation, before[0])
        case Activation():
            return _activation(operation, before[0])
        case MaxPool():
            return _max_pool(operation, before[0])
        case SmoothMap():
            return _smooth(operation, before[0], radius)
        case Concatenation():
            return _concatenated(before)
        case _:
            return _sum(*before)


def _affine(layer: Affine, before: State) -> State:
    norm, variation = layer.norm * before.norm, layer.norm * before.variation
    scale, inner = torch.ones_like(before.rows), before
    if before.slopes is not None:
        scale, inner = before.slopes.scale, before.slopes.before
        scaled, spread = layer.scaled_norm(scale), layer.scaled_norm(before.slopes.spread)
        norm = torch.minimum(norm, scaled * inner.norm)
        variation = torch.minimum(variation, scaled * inner.variation + spread * inner.norm)
    rows = layer.row_norms(scale)
    return State(
        layer(before.value),
        *_interval(layer, before),
        torch.minimum(rows * over(inner.norm, rows), layer.absolute(before.rows)),
        norm,
        variation,
        before.expansion and before.expansion.mapped(layer),
    )


def _interval(layer: Affine, before: State) -> tuple[Values, Values, Values]:
    """How far rounding may have moved the value, and its bounds."""
    if layer.kind == "picking":
        return layer(before.error), layer(before.lower), layer(before.upper)
    rounding = ROUNDING * (layer.absolute(before.value.abs()) + layer.magnitude)
    middle, half = (before.lower + before.upper) / 2, (before.upper - before.lower) / 2
    magnitude = layer.absolute(middle.abs() + half) + layer.magnitude
    centre, reach = layer(middle), layer.absolute(half) + ROUNDING * magnitude
    return layer.absolute(before.error) + rounding, centre - reach, centre + reach


def _activation(function: Activation, before: State) -> State:
    least, most = function.slopes(before.lower, before.upper)
    scale, spread = torch.maximum(least.abs(), most.abs()), most - least
    curvature = function.bend(before.lower, before.upper)
    value = function(before.value)
    rounding = function.rounding * (1 + before.value.abs()) + ROUNDING * value.abs()
    return State(
        value,
        function.lipschitz * before.error + rounding,
        *function.values(before.lower, before.upper),
        scale * before.rows,
        largest(scale) * before.norm,
        largest(scale) * before.variation + largest(spread) * before.norm,
        before.expansion and before.expansion.activated(least, most, curvature, before.norm),
        Slopes(replace(before, expansion=None), scale, spread),
    )


def _max_pool(pool: MaxPool, before: State) -> State:
    places, certain = pool.winners(before.lower, before.upper)
    change = pool.difference_norm * largest((~certain).double()) * before.norm
    return State(
        pool(before.value),
        pool(before.error),
        pool(before.lower),
        pool(before.upper),
        pool(before.rows),
        pool.norm * before.norm,
        pool.norm * before.variation + change,
        before.expansion and before.expansion.pooled(pool, places, certain, before.norm),
    )


def _smooth(layer: SmoothMap, before: State, radius: PerExample) -> State:
    """Expand a layer at the value; the ball is convex, so that J bounds how far that moves."""
    sizes = torch.fmin(layer.lengths(before.rows), over(before.norm, layer.lengths(before.rows)))
    if before.expansion is not None:
        sizes = torch.fmin(sizes, before.expansion.part_norms(layer))
    reach = torch.maximum(before.upper - before.value, before.value - before.lower)
    moved = over(radius, sizes) * sizes + layer.lengths(before.error)
    distance = torch.fmin(moved, layer.lengths(reach)).nan_to_num(math.inf, math.inf)
    box = Box(before.value, before.lower, before.upper, MARGIN * distance, sizes)
    at = layer.on(box)
    of_parts = lengths((at.steepness * sizes).sum(2), 1)
    return State(
        layer(before.value),
        at.absolute(before.error[:, None])[:, 0] + ROUNDING * at.magnitude,
        at.lower - ROUNDING * at.lower.abs(),
        at.upper + ROUNDING * at.upper.abs(),
        at.absolute(before.rows[:, None])[:, 0],
        torch.fmin(at.norm * before.norm, of_parts),
        at.norm * before.variation + 2 * at.spread * before.norm,
        before.expansion and before.expansion.bent(at, before.norm),
    )


def _sum(x: State, y: State) -> State:
    value, lower, upper = x.value + y.value, x.lower + y.lower, x.upper + y.upper
    return State(
        value,
        x.error + y.error + ROUNDING * value.abs(),
        lower - ROUNDING * lower.abs(),
        upper + ROUNDING * upper.abs(),
        x.rows + y.rows,
        x.norm + y.norm,
        x.variation + y.variation,
        x.expansion and y.expansion and x.expansion + y.expansion,
    )


def _concatenated(states: list[State]) -> State:
    """Join flattened values, whose Jacobians come to stand below one another."""

    def joined(part: Callable[[State], Tensor]) -> Tensor:
        return torch.cat([part(state).flatten(1) for state in states], dim=1)

    expansions = [state.expansion for state in states if state.expansion is not None]
    return State(
        joined(lambda state: state.value),
        joined(lambda state: state.error),
        joined(lambda state: state.lower),
        joined(lambda state: state.upper),
        joined(lambda state: state.rows),
        lengths(torch.stack([state.norm for state in states]), 0),
        lengths(torch.stack([state.variation for state in states]), 0),
        Expansion.concatenated(expansions) if expansions else None,
    )
