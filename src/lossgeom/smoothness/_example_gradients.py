"""Gradients of every output at every example, reduced a block at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.batches import Batch
from lossgeom.messages.checks import check_at_least
from lossgeom.problem import NonFiniteError, Problem
from lossgeom.smoothness._pieces import FEW, Linearize, look, parts

MEMORY_BUDGET = 2**26  # on a CPU, more of it is slower
CACHE_NUMBERS = 2**17  # powers are taken of as many numbers at a time, in float64

Rows = Callable[[Batch, Tensor], Tensor]  # (B, m, D) for examples and cotangents (m, C)
Reduce = Callable[[Float[Tensor, "M p"]], Float[Tensor, "M r"]]


def reduced_gradients(
    problem: Problem,
    linearize: Linearize,
    batch: Batch,
    reduce: Reduce,
    memory_budget: int,
    *,
    alone: bool = False,
    together: Rows | None = None,
) -> Float[Tensor, "B C r"]:
    """Reduce the gradients of all outputs at the examples of a batch.

    Args:
        problem: in the mode to measure in.
        linearize: what gives outputs with their graph.
        batch: with the examples.
        reduce: makes r numbers, in float64, of each gradient.
        memory_budget: bytes of gradients and graphs that are held at a time, after the first few.
        alone: whether examples are linearised one at a time, because they share what is
            differentiated in.
        together: what gives the gradients of several such examples at once, if there is a way.

    Raises:
        ValueError: if the outputs are not one row per example, or those of one example depend on
            another.
        NonFiniteError: where an output or a gradient is NaN or infinite.
    """
    check_at_least(1, memory_budget=memory_budget)
    few, sizes = look(problem, linearize, batch.examples(0, 1 if alone else FEW))
    C, graph = few.C, sum(sizes)
    # a backward pass holds the gradients in two layers or so besides
    row = (few.D + C) * few.outputs.element_size() + 2 * max(sizes, default=0)
    width = min(C, max(1, int((memory_budget - graph) // row)))
    height = 1 if alone and together is None else memory_budget // (graph + width * row)
    like = few.outputs.detach()
    del few

    def rows(part: Batch) -> Iterator[Tensor]:
        point = linearize(part) if together is None else None
        for first in range(0, C, width):
            last = min(first + width, C)
            if point is not None:
                yield point.rows(first, last)
            elif together is not None:
                U = like.new_zeros(last - first, C)
                U.diagonal(first).fill_(1)
                yield together(part, U)

    def reduced(G: Float[Tensor, "B m p"]) -> Float[Tensor, "B m r"]:
        return reduce(G.flatten(0, 1)).reshape(*G.shape[:2], -1)

    found = [torch.cat([reduced(G) for G in rows(part)], 1) for part in parts(batch, height)]
    return finite(torch.cat(found))


def finite(gradients: Tensor) -> Tensor:
    """Return gradients, or norms of them, if none is NaN or infinite."""
    if not gradients.isfinite().all():
        raise NonFiniteError("a gradient of an output is NaN or infinite at these parameters")
    return gradients


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
