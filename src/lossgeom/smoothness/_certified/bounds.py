"""Bounds of Jacobians of a network on l2 balls, propagated from layer to layer."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.smoothness._certified.activations import Activation
from lossgeom.smoothness._certified.affine_maps import Affine
from lossgeom.smoothness._certified.graph import Graph, Operation
from lossgeom.smoothness._certified.max_pooling import MaxPool
from lossgeom.smoothness._certified.operator_norms import EPSILON
from lossgeom.smoothness._certified.states import Block, Slopes, State, largest, over, total

MARGIN = 1 + 1e-9  # for the rounding of sums and products of numbers that are not negative
ROUNDING = 2e-11  # of a sum of up to 10^5 numbers, relative to the sum of their magnitudes
BLOCK_NUMBERS = 2**22  # of the blocks of one value and example, beyond which none are held
CHUNK_NUMBERS = 2**24  # of those of a chunk of examples
INPUT = -1  # the block that the input itself comes through


@dataclass(frozen=True, eq=False)
class Bounds:
    """What holds on the ball round each example.

    Attributes:
        norm: upper bound of ||J(x)||.
        variation: upper bound of ||J(x) - J(x')||.
        lower: of the outputs.
        upper: of the outputs.
    """

    norm: Float[Tensor, " B"]
    variation: Float[Tensor, " B"]
    lower: Float[Tensor, "B C"]
    upper: Float[Tensor, "B C"]


def bounds(
    graph: Graph, centres: Float[Tensor, "N ..."], radius: float | Float[Tensor, " N"]
) -> Bounds:
    r"""Bounds on balls of one radius, or of one for each example, which may be infinite.

    Every Jacobian of the network on the ball is a product of known matrices and of diagonal ones,
    with the slopes of activations, which the propagation knows in intervals. Two bounds are carried
    along, and the smaller is taken:

    *Norms.* ``||A D J|| <= ||A S|| ||J||`` for ``|D| <= S``, because ``D = S T`` with ``||T|| <=
    1``; sums add. Differences telescope: ``D J - D' J' = D (J - J') + (D - D') J'``.

    *Blocks.* With the middle C and the half width R of the intervals, ``D = C + R^1/2 T R^1/2``,
    and by induction ``J = X_input + sum_k X_k T_k G_k`` with ``G_k = R_k^1/2 J_k`` for the
    Jacobian ``J_k`` before activation k, where the X are products of known matrices. Hence
    ``||J|| <= ||X_input|| + sum_k ||X_k|| gain_k``, where the gain of k bounds ``||G_k||`` in the
    same way, and ``||J(x) - J(x')|| <= 2 sum_k ||X_k|| gain_k``.

    The intervals themselves follow from the rows of J (which the blocks bound too), by the mean
    value theorem on the ball, and from interval arithmetic.
    """
    numbers = _block_numbers(graph)
    chunk = max(1, CHUNK_NUMBERS // min(numbers, BLOCK_NUMBERS))
    radii = torch.as_tensor(radius, dtype=centres.dtype, device=centres.device).expand(len(centres))
    with torch.no_grad():
        parts = [
            _Ball(part_radii, numbers <= BLOCK_NUMBERS).through(graph, part)
            for part, part_radii in zip(
                torch.split(centres, chunk), torch.split(radii, chunk), strict=True
            )
        ]
    names = [each.name for each in fields(Bounds)]
    return Bounds(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


def _block_numbers(graph: Graph) -> int:
    """How many numbers the blocks of one example take at most, at the largest value."""
    columns = math.prod(graph.input_shape)
    most = columns**2
    for step in graph.steps:
        if isinstance(step.operation, (Activation, MaxPool)):
            columns += math.prod(step.shape)
        most = max(most, columns * math.prod(step.shape))
    return most


@dataclass(frozen=True, eq=False)
class _Ball:
    """The propagation, with the gains of the deviations met so far."""

    radius: Float[Tensor, " B"]
    with_blocks: bool
    gains: dict[int, Float[Tensor, " B"]] = field(default_factory=dict)

    def through(self, graph: Graph, x: Float[Tensor, "B ..."]) -> Bounds:
        """From the input to the output."""
        states = [self.start(x)]
        for number, step in enumerate(graph.steps):
            before = [states[i] for i in step.arguments]
            states.append(self.boxed(self.step(step.operation, before, number)))
        return self.finish(states[-1])

    def step(self, operation: Operation, before: list[State], number: int) -> State:
        match operation:
            case Affine():
                return self.affine(operation, before[0])
            case Activation():
                return self.activation(operation, before[0], number)
            case MaxPool():
                return self.max_pool(operation, before[0], number)
            case _:
                return self.sum(*before)

    def start(self, x: Float[Tensor, "B ..."]) -> State:
        none, one = x.new_zeros(len(x)), x.new_ones(len(x))
        everywhere = torch.full_like(x, math.inf)
        self.gains[INPUT] = one
        D = math.prod(x.shape[1:])
        blocks = {}
        if self.with_blocks:
            unit = torch.eye(D).to(x).reshape(1, D, *x.shape[1:])
            blocks[INPUT] = Block(unit.expand(len(x), *unit.shape[1:]), none)
        error, ones = ROUNDING * x.abs(), torch.ones_like(x)
        return self.boxed(State(x, error, -everywhere, everywhere, ones, one, none, blocks))

    def boxed(self, state: State) -> State:
        """With the bounds of the value that follow from the lengths of the Jacobian's rows.

        The ball is convex, so abs(z_i(x) - z_i(x0)) <= r max ||J_i||, by the mean value theorem.
        """
        rows = torch.minimum(state.rows, over(state.norm, state.rows))
        if state.blocks:
            paths = (block.rows() * over(self.gains[k], rows) for k, block in state.blocks.items())
            rows = torch.minimum(rows, total(paths))
        reach = (over(self.radius, rows) * rows + state.error) * MARGIN
        reach = reach.nan_to_num(math.inf, math.inf)
        value = state.value.nan_to_num()
        everywhere = over(self.radius, value).isinf()
        lower = torch.fmax(state.lower, value - reach).masked_fill(everywhere, -math.inf)
        upper = torch.fmin(state.upper, value + reach).masked_fill(everywhere, math.inf)
        return replace(state, rows=rows, lower=lower, upper=upper)

    def affine(self, layer: Affine, before: State) -> State:
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
        value = layer.linear(before.value) + layer.bias
        error = layer.absolute(before.error) + ROUNDING * (
            layer.absolute(before.value.abs()) + layer.magnitude
        )
        blocks = {k: _mapped(layer, block) for k, block in before.blocks.items()}
        lower, upper = centre - reach - rounding, centre + reach + rounding
        return State(value, error, lower, upper, rows, norm, variation, blocks)

    def activation(self, function: Activation, before: State, number: int) -> State:
        least, most = function.slopes(before.lower, before.upper)
        scale, spread = torch.maximum(least.abs(), most.abs()), most - least
        value = function.value(before.value)
        rounding = function.rounding * (1 + before.value.abs()) + ROUNDING * value.abs()
        lower, upper = function.values(before.lower, before.upper)
        blocks = {k: _scaled((least + most) / 2, block) for k, block in before.blocks.items()}
        if before.blocks and spread.any():
            root = (spread / 2).sqrt()
            self.gains[number] = self.gain(root, before)
            blocks[number] = _diagonal(root)
        return State(
            value,
            function.lipschitz * before.error + rounding,
            lower,
            upper,
            scale * before.rows,
            largest(scale) * before.norm,
            largest(scale) * before.variation + largest(spread) * before.norm,
            blocks,
            Slopes(scale, spread, before.norm, before.variation),
        )

    def gain(self, scale: Float[Tensor, "B ..."], before: State) -> Float[Tensor, " B"]:
        """An upper bound of the norm of the scaled Jacobian."""
        scaled = {k: _scaled(scale, block) for k, block in before.blocks.items()}
        return torch.minimum(largest(scale) * before.norm, self.combined(scaled))

    def combined(self, blocks: dict[int, Block]) -> Float[Tensor, " B"]:
        r"""An upper bound of the norm of sum_k X_k T_k G_k, with ||T_k|| <= 1, ||G_k|| <= g_k.

        With s = sum_k ||X_k|| g_k and w_k^2 = g_k / ||X_k||, it is the product of a row of blocks
        and a column, hence at most ||(w_1 X_1, w_2 X_2, ...)|| sqrt(s), which is at most s.
        """
        norms = {k: block.norm() for k, block in blocks.items()}
        s = total(norms[k] * self.gains[k] for k in blocks)
        if len(blocks) == 1:
            return s
        weights = {k: torch.where(n > 0, self.gains[k] / n, 0).sqrt() for k, n in norms.items()}
        row = torch.cat([over(weights[k], b.columns) * b.columns for k, b in blocks.items()], dim=1)
        error = total(weights[k] * block.error for k, block in blocks.items())
        return torch.fmin(s, Block(row, error).norm() * s.sqrt())

    def max_pool(self, pool: MaxPool, before: State, number: int) -> State:
        places, certain = pool.winners(before.lower, before.upper)
        touched = pool.touched(~certain).double()
        uncertain = (~certain).double().reshape(-1, *pool.output_shape)
        change = pool.difference_norm * largest(uncertain) * before.norm
        blocks = {k: _chosen(pool, places, certain, b) for k, b in before.blocks.items()}
        if before.blocks and uncertain.any():
            self.gains[number] = pool.norm * self.gain(touched, before)
            blocks[number] = _diagonal(uncertain)
        return State(
            pool(before.value),
            pool(before.error),
            pool(before.lower),
            pool(before.upper),
            pool(before.rows),
            pool.norm * before.norm,
            pool.norm * before.variation + change,
            blocks,
        )

    def sum(self, x: State, y: State) -> State:
        value = x.value + y.value
        error = x.error + y.error + ROUNDING * value.abs()
        blocks = {**x.blocks, **y.blocks}
        for k in x.blocks.keys() & y.blocks.keys():
            a, b = x.blocks[k], y.blocks[k]
            rounding = EPSILON * (a.size() + b.size())
            blocks[k] = Block(a.columns + b.columns, a.error + b.error + rounding)
        lower, upper = x.lower + y.lower, x.upper + y.upper
        return State(
            value,
            error,
            lower - ROUNDING * lower.abs(),
            upper + ROUNDING * upper.abs(),
            x.rows + y.rows,
            x.norm + y.norm,
            x.variation + y.variation,
            blocks,
        )

    def finish(self, state: State) -> Bounds:
        """The bounds at the output."""
        norm, variation = state.norm, state.variation
        if state.blocks:
            norm = torch.minimum(norm, self.combined(state.blocks))
            deviations = {k: block for k, block in state.blocks.items() if k != INPUT}
            deviation = self.combined(deviations) if deviations else torch.zeros_like(norm)
            variation = torch.minimum(variation, 2 * deviation)
        variation = torch.minimum(variation, 2 * norm)
        norm, variation = (
            (MARGIN * part).nan_to_num(math.inf, math.inf) for part in (norm, variation)
        )
        return Bounds(norm, variation, state.lower.flatten(1), state.upper.flatten(1))


def _mapped(layer: Affine, block: Block) -> Block:
    """A X; rounding is at most that of sums of magnitudes, in the Frobenius norm."""
    rounding = layer.rounding * layer.absolute_norm * block.size()
    return Block(layer.linear(block.columns), layer.norm * block.error + rounding)


def _scaled(scale: Float[Tensor, "B ..."], block: Block) -> Block:
    """diag(scale) X."""
    error = largest(scale.abs()) * (block.error + EPSILON * block.size())
    return Block(scale[:, None] * block.columns, error)


def _diagonal(scale: Float[Tensor, "B ..."]) -> Block:
    """diag(scale), without the columns that are zero for all examples."""
    flat = scale.flatten(1)
    columns = torch.diag_embed(flat)[:, (flat != 0).any(0)]
    return Block(torch.unflatten(columns, 2, scale.shape[1:]), flat.new_zeros(len(flat)))


def _chosen(pool: MaxPool, places: Tensor, certain: Tensor, block: Block) -> Block:
    """The rows of the inputs that win for certain, and zeros elsewhere."""
    columns = torch.nn.functional.pad(block.columns.flatten(2), (0, 1))
    index = places[:, None].expand(-1, columns.shape[1], -1)
    chosen = columns.gather(2, index) * certain[:, None]
    return Block(torch.unflatten(chosen, 2, pool.output_shape), pool.norm * block.error)
