"""Gradients of every output at every example, reduced a block at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.autodiff.memory_budget import with_sizes
from lossgeom.autodiff.variables import Variables, finite_outputs, leaves_of, size_of
from lossgeom.batches import Batch
from lossgeom.problem import Problem
from lossgeom.trust.trial import Trial, tried
from lossgeom.trust.ways import Pull, fastest_way, finite

MEMORY_BUDGET = 2**26  # on a CPU, more of it is slower
CACHE_NUMBERS = 2**17  # powers are taken of as many numbers at a time, in float64

Reduce = Callable[[Float[Tensor, "M p"]], Float[Tensor, "M r"]]


def reduced_gradients(
    problem: Problem, variables: Variables, batch: Batch, reduce: Reduce, memory_budget: int
) -> Float[Tensor, "B C r"]:
    """What a function makes of the gradients of all outputs at the examples of a batch.

    Each example is run alone, several at a time where torch can do so, so that the gradients of
    different examples stay apart. That they are those of the whole batch is tried on a few.

    Args:
        problem: in the mode to measure in.
        variables: to differentiate in, p numbers for an example.
        batch: with the examples.
        reduce: from gradients to r numbers for each, in float64.
        memory_budget: bytes of gradients and graphs that are held at a time, after the first few.

    Raises:
        ValueError: if the outputs are not one row per example, or those of one example depend on
            another.
        NonFiniteError: where an output or a gradient is NaN or infinite.
    """
    if memory_budget < 1:
        raise ValueError(f"expected memory_budget to be at least 1 byte, got {memory_budget}")
    outputs = finite_outputs(problem, batch)
    pull, graph, live = tried(problem, batch, _way, variables)
    row = (size_of(variables, problem, batch) + outputs.shape[1]) * outputs.element_size() + live

    def reduced(G: Tensor) -> Tensor:
        return reduce(G.flatten(0, 1)).reshape(*G.shape[:2], -1)

    found = [
        torch.cat([reduced(pull(problem, variables, piece, U)) for U in cotangents], 1)
        for piece, cotangents in _blocks(batch, outputs, graph, row, memory_budget)
    ]
    return finite(torch.cat(found))


def _way(trial: Trial, variables: Variables) -> tuple[Pull, float, float]:
    """The fastest way to the gradients, and the bytes that it needs."""
    sizes = _graph_bytes(trial.problem, variables, trial.batch)
    return fastest_way(trial, variables), *sizes


def _graph_bytes(problem: Problem, variables: Variables, few: Batch) -> tuple[float, float]:
    """Of an example, and what a backward pass through it holds besides: two layers or so."""
    leaves = leaves_of(variables, problem, few)
    _, sizes = with_sizes(problem, lambda: variables.outputs(problem, leaves, few))
    return sum(sizes) / len(few), 2 * max(sizes, default=0) / len(few)


def _blocks(
    batch: Batch, outputs: Tensor, graph: float, row: float, memory_budget: int
) -> Iterator[tuple[Batch, Iterator[Tensor]]]:
    """Pieces of a batch, each with unit vectors for its outputs, few at a time."""
    B, C = outputs.shape
    width = min(C, max(1, int((memory_budget - graph) // row)))
    height = max(1, int(memory_budget // (graph + width * row)))

    def units(examples: int) -> Iterator[Tensor]:
        for first in range(0, C, width):
            unit = outputs.new_zeros(min(width, C - first), C)
            unit.diagonal(first).fill_(1)
            yield unit.expand(examples, *unit.shape)

    for start in range(0, B, height):
        piece = batch.examples(start, start + height)
        yield piece, units(len(piece))


def power_norms(rows: Float[Tensor, "M p"], orders: Sequence[int]) -> Float[Tensor, "M r"]:
    """The l_2k norm of each row for each order k, in float64, where no power overflows."""
    pieces = torch.split(rows, max(1, CACHE_NUMBERS // rows.shape[1]))
    return torch.cat([_power_norms(piece, orders) for piece in pieces])


def _power_norms(rows: Tensor, orders: Sequence[int]) -> Tensor:
    x = rows.double()
    scale = x.abs().amax(1)
    square = (x / torch.where(scale > 0, scale, 1)[:, None]).square_()
    power, sums = square, {1: square.sum(1)}
    for k in range(2, max(orders) + 1):
        power = power * square
        sums[k] = power.sum(1)
    return torch.stack([scale * sums[k] ** (0.5 / k) for k in orders], 1)
