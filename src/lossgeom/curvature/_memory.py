"""What products with a matrix need in memory, and what is kept between them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar
from weakref import WeakMethod

from jaxtyping import Float
from torch import Tensor

from lossgeom.batches import Batch
from lossgeom.distributed import ALONE, Ranks
from lossgeom.linalg import Memory
from lossgeom.linalg.memory import worth_holding
from lossgeom.losses.graphs import with_bytes
from lossgeom.problem import Problem, checked_problem
from lossgeom.problem.first_look import FEW, FEWEST, LARGE, graph_bytes
from lossgeom.problem.isolation import hooks_undone
from lossgeom.problem.model_facts import GraphBytes, Key
from lossgeom.trust.trial import bytes_of_guard, on_few

PIECE_BYTES = 768 * 2**20  # of saved tensors: on a CPU, larger pieces are no faster
TAPE_BYTES = 32 * 2**20  # of saved tensors in a batch: smaller ones are not worth a recording
LARGE_TAPE = 256 * 2**20  # from which on forward mode is not what takes the least

# How much is held, beside what it was at most on networks of several kinds.
VECTORS = 5  # of P numbers: gradients and products, and their pieces while autograd adds them up
OF_BLOCK = 3  # of P numbers for each further vector of a block
GRAPH, FORWARD, RECORDED = 2.8, 3.5, 4.2  # times what a graph saves, with what is made on the way
BLOCK = "further vectors of a block"
LOOK = 0.6  # the same of an evaluation, without a gradient
LOOKED_AT, COMPARED = 3, 1.5  # times outputs beside that; beside the graph, where derivatives are
OUTPUTS = 0.8  # the same of the outputs alone, and a gradient of them
WORKSPACE = 48 * 2**20  # bytes of kernels and of the allocator, some 30 MB more or less by chance
GRAPHS = "graphs and recordings, kept between products"

Linear = TypeVar("Linear")
Result = TypeVar("Result")


class Plan(NamedTuple):
    """How a product with a batch is made.

    Attributes:
        parts: the least number of parts of the batch whose graphs are not too large.
        forward: whether there is room for forward mode, where it pays.
    """

    parts: float
    forward: bool


def planned(
    problem: Problem, batch: Batch, memory: Memory, whole: bool, parts: float | None = None
) -> Plan:
    """Plan a first product with a batch, and put down what its steps need.

    Below twice theta, vectors take more than graphs. What another batch needed stays put down.

    Args:
        problem: the model.
        batch: that the product is made with.
        memory: the account, of which the budget decides.
        whole: whether the batch must not be cut, and no product be recorded.
        parts: that the batch is cut into, where that is known.
    """
    theta, facts = problem.theta, problem.evaluation.facts
    graph = facts.known(Key(graph_size), partial(graph_size, problem, batch))
    size, vectors = len(batch) * graph.bytes_each, VECTORS * theta.nbytes + int(graph.bytes_shared)
    tensors = (theta, *problem.network.constants(), *problem.network.module.buffers())
    copied = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}
    memory.all_along.update({"a copy of the model": sum(copied.values()), "workspace": WORKSPACE})
    left = max(0, (memory.budget or 0) - sum(memory.all_along.values()) - vectors)
    if parts is None:
        most = max(worth_holding(theta.device, PIECE_BYTES), 2 * theta.nbytes)
        parts = 1 if whole else max(1, size / (min(most, left / GRAPH) if left else most))
    pays = graph.convolutions and size >= TAPE_BYTES and not whole
    times = times_of_graph(memory.budget, left, size / parts) if pays else GRAPH
    few = min(FEW, len(batch)) if theta.numel() > LARGE else len(batch)
    steps = {
        "the look at the model": theta.nbytes
        + few * (LOOK * graph.bytes_each + LOOKED_AT * graph.bytes_of_outputs),
        "the comparison of derivatives": bytes_of_guard(
            problem,
            graph.examples,
            graph.bytes_each + COMPARED * graph.bytes_of_outputs,
            graph.bytes_again,
        ),
        "a product": vectors + times * size / parts,
    }
    if parts > 1:
        steps["the comparison of parts"] = vectors + OUTPUTS * size * (1 + 1 / parts)
    for what, nbytes in steps.items():
        memory.steps[what] = max(memory.steps.get(what, 0), int(nbytes))
    return Plan(parts, times > GRAPH)


def times_of_graph(budget: int | None, left: float, size: float) -> float:
    """How many times what a graph saves a product takes, in forward mode where there is room."""
    if budget == 0:
        return FORWARD if size < LARGE_TAPE else GRAPH
    return RECORDED if budget is None or RECORDED * size <= left else GRAPH


def put_down_block(memory: Memory, rows: Float[Tensor, "k P"]) -> None:
    """Put down what is held for vectors that are multiplied together, beside that for one."""
    further = OF_BLOCK * (rows.nbytes - rows[0].nbytes)
    if further > memory.all_along.get(BLOCK, 0):
        memory.all_along[BLOCK] = further


@dataclass(frozen=True)
class GraphSize:
    """What a few examples show of the graph of a gradient.

    Attributes:
        bytes_each: about what it saves for an example.
        convolutions: whether there are any.
        bytes_shared: about what it saves once for all, beside parameters.
        bytes_again: what it would save besides for an example if nothing were computed again.
        bytes_of_outputs: of an example.
        examples: how many it was seen on.
    """

    bytes_each: float
    convolutions: bool
    bytes_shared: float = 0.0
    bytes_again: float = 0.0
    bytes_of_outputs: float = 0.0
    examples: int = 1


def graph_size(problem: Problem, batch: Batch) -> GraphSize:
    """What the graph of the loss of a problem saves, as the look at the model or another one shows.

    That of its gradient saves 1.1 to 2.1 times as much, in networks of all kinds. Of the parts that
    are computed again, the largest is there with the rest.
    """
    seen = problem.evaluation.facts.first_look.graph
    few, two = (seen, None) if seen else on_few(problem, batch, _on_some)
    whole, n = few.saved + max(few.parts, default=0), few.examples
    shared = min(whole, problem.theta.nbytes)
    if two is not None:  # what is made of parameters, such as in autocast, is shared by all
        saved = two.saved + max(two.parts, default=0)
        shared = min(whole, max(0, (n * saved - FEWEST * whole) // (n - FEWEST)))
    # what is saved rounded is worked on in full
    times = 2 if problem.evaluation.autocast is None else 4
    return GraphSize(
        times * (whole - shared) / n,
        not few.parts and few.convolutions,
        times * max(0, shared - problem.theta.nbytes),
        times * (sum(few.parts) - max(few.parts, default=0)) / n,
        few.outputs / n,
        n,
    )


def _on_some(small: Problem) -> tuple[GraphBytes, GraphBytes | None]:
    """What the graph of the loss of a problem saves, and that of two examples where it has more."""
    at, batch, theta = small.evaluation, small.first_batch(), small.leaf()
    with at.network.undone():
        few = graph_bytes(at, *with_bytes(at.outputs, theta, batch), batch)
    with suppress(Exception):  # of whatever a model says to fewer examples
        if few.examples > FEWEST:
            two = batch.examples(0, FEWEST)
            with at.network.undone():
                return few, graph_bytes(at, *with_bytes(at.outputs, theta, two), two)
    return few, None


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
        with problem.data.kept():  # which others do not share, or an error
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
        """Go over all pieces in order, with plain arithmetic switched to by the caller.

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

        with hooks_undone():
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
