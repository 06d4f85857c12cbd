"""How much memory autograd's graphs hold, and what of them is kept between passes over the data."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from weakref import WeakMethod

import torch
from torch import Tensor

from lossgeom.batches import Batch
from lossgeom.distributed import ALONE, Ranks
from lossgeom.linalg import Memory, plain_arithmetic
from lossgeom.problem import Problem, checked_problem
from lossgeom.problem.graphs import graph_nodes, with_bytes
from lossgeom.problem.isolation import hooks_undone
from lossgeom.problem.recomputation import bytes_of_parts

HALF = 2  # of the few examples that show the size of a graph
GRAPHS = "graphs and recordings, kept between products"

Linear = TypeVar("Linear")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Linearization(Generic[Linear]):
    """What products with one batch, or a piece of it, are made from.

    Attributes:
        linear: makes them; ``None`` where it is not worth keeping.
        count: the number of terms of the piece.
        storages: bytes that are held for it, by the memory that they are in.
    """

    linear: Linear | None
    count: float
    storages: dict[int, int]


class Kept(Generic[Linear]):
    """Linearisations of pieces of batches, kept between passes as far as a budget goes.

    The first pass makes one for every piece. The first of them are kept, as many as there is room
    for; the rest are made anew in every pass. It holds no function of its owner, which would then
    outlive its last user.

    Args:
        problem: whose batches they are of.
        memory_budget: bytes for all that is held.
        ranks: the processes that have a share of it each.

    Attributes:
        theta: the leaf that they start from.
        memory: the account, of which the budget decides.
        terms: the number of terms in all pieces, known after the first pass.
    """

    def __init__(self, problem: Problem, memory_budget: int | None, ranks: Ranks = ALONE) -> None:
        self.problem = checked_problem(problem)
        self.theta = problem.leaf()
        self.terms = math.nan
        give_way = WeakMethod(self.give_way)
        self.memory = Memory(memory_budget, self.theta.device, gives_way=give_way, ranks=ranks)
        self._linear: dict[tuple[int, int], tuple[Linear, dict[int, int]]] = {}  # by place
        self._pieces = -1  # their number, after the first pass

    def over_batches(
        self,
        first: Callable[[Batch], tuple[Result, Linearization[Linear]]],
        again: Callable[[Batch], Result],
        use: Callable[[Linear], Result],
        take: Callable[[Result], Any],
        pieces: Callable[[Batch], Sequence[Batch]] = lambda batch: [batch],
    ) -> None:
        """Go over all pieces in order.

        Args:
            first: what is made of a piece in the first pass, with the linearisation to keep.
            again: what is made in a later pass of one whose linearisation was not kept.
            use: what is made of a linearisation that was.
            take: is given what was made of each piece.
            pieces: cuts a batch.
        """
        counts: list[float] = []
        passed = self._pieces >= 0
        if not passed:  # or the one before has failed
            self._linear = {}
        self.give_way()

        def on_batch(batch: Batch) -> None:
            for place, piece in enumerate(pieces(batch)):  # which may need more than those before
                held, key = self.give_way(), (batch.index, place)
                if key in self._linear:
                    take(use(self._linear[key][0]))
                elif passed:
                    take(again(piece))
                else:
                    result, made = first(piece)
                    take(result)
                    first_ones = len(self._linear) == len(counts)
                    more = sum(n for memory, n in made.storages.items() if memory not in held)
                    if made.linear is not None and first_ones and more <= self.memory.room:
                        self._linear[key] = made.linear, made.storages
                    counts.append(made.count)

        with plain_arithmetic(self.theta.device), hooks_undone():
            if len(self._linear) == self._pieces:
                for linear, _ in self._linear.values():
                    take(use(linear))
                return
            self.problem.over_batches(on_batch)
            if not passed:
                self.terms, self._pieces = math.fsum(counts), len(counts)
            self.give_way()

    def give_way(self) -> dict[int, int]:
        """Let go of the last that are kept, where a budget has no room for them any more.

        Returns:
            Bytes of what the rest holds, by the memory that they are in.
        """
        memory, kept = self.memory, self._linear
        while True:
            held = {key: size for _, storages in kept.values() for key, size in storages.items()}
            memory.besides[GRAPHS] = sum(held.values())
            more = memory.least + sum(memory.besides.values())
            if not (kept and memory.budget and more > memory.budget):
                return held
            kept.popitem()


def worth_holding(device: torch.device, on_cpu: int) -> int:
    """Bytes to work on at a time: on a GPU, where more is faster, a part of what is free."""
    return torch.cuda.mem_get_info(device)[0] // 4 if device.type == "cuda" else on_cpu


@dataclass(frozen=True)
class GraphSize:
    """What a few examples show of the graph of a gradient.

    Attributes:
        bytes_each: about what it saves for an example.
        convolutions: whether there are any.
        bytes_shared: about what it saves once for all, beside parameters.
        bytes_again: what it would save besides for an example if nothing were computed again.
    """

    bytes_each: float
    convolutions: bool
    bytes_shared: float = 0.0
    bytes_again: float = 0.0


def graph_size(small: Problem) -> GraphSize:
    """Look at the graph of the loss of a problem on a few examples.

    That of its gradient saves 1.1 to 2.1 times as much, in networks of all kinds. Of the parts that
    are computed again, the largest is there with the rest.
    """
    at, few, theta = small.evaluation, small.first_batch(), small.leaf()

    def saved(batch: Batch) -> tuple[int, Tensor]:
        with at.network.undone():
            outputs, storages = with_bytes(at.outputs, theta, batch)
            (total, _), of_loss = with_bytes(at.terms, outputs, batch)
        largest = max(bytes_of_parts(total), default=0)
        return sum({**storages, **of_loss}.values()) + largest, total

    (whole, total), n = saved(few), len(few)
    parts = bytes_of_parts(total)
    shared = min(whole, theta.nbytes)
    with suppress(Exception):  # of whatever a model says to fewer examples
        if n > HALF:  # what is made of parameters, such as in autocast, is shared by all examples
            half, _ = saved(few.examples(0, HALF))
            shared = min(whole, max(0, (n * half - HALF * whole) // (n - HALF)))
    times = 2 if at.autocast is None else 4  # what is saved rounded is worked on in full
    return GraphSize(
        times * (whole - shared) / n,
        not parts and any("Convolution" in node.name() for node in graph_nodes(total)),
        times * max(0, shared - theta.nbytes),
        times * (sum(parts) - max(parts, default=0)) / n,
    )


def with_sizes(problem: Problem, make: Callable[[], Result]) -> tuple[Result, list[int]]:
    """Call a function, and list the sizes of what graphs save of it, but for parameters.

    Those are shared by all examples.
    """
    made, storages = with_bytes(make)
    tensors = (problem.theta, *problem.network.constants())
    shared = {tensor.untyped_storage()._cdata for tensor in tensors}
    return made, [size for storage, size in storages.items() if storage not in shared]
