"""What a product with a matrix needs in memory, from a look at a few examples."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from lossgeom.autodiff.memory_budget import GraphSize, graph_size, worth_holding
from lossgeom.batches import Batch
from lossgeom.linalg import Memory
from lossgeom.problem import Problem
from lossgeom.problem.first_look import FEW, LARGE
from lossgeom.problem.model_facts import Key
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
OUTPUTS = 0.8  # the same of the outputs alone, and a gradient of them
WORKSPACE = 32 * 2**20  # bytes of kernels and of the allocator


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
    graph, theta = size_of_graph(problem, batch), problem.theta
    size, vectors = len(batch) * graph.bytes_each, VECTORS * theta.nbytes + int(graph.bytes_shared)
    memory.all_along.update({"a copy of the model": bytes_of_copy(problem), "workspace": WORKSPACE})
    left = max(0, (memory.budget or 0) - sum(memory.all_along.values()) - vectors)
    if parts is None:
        most = max(worth_holding(theta.device, PIECE_BYTES), 2 * theta.nbytes)
        parts = 1 if whole else max(1, size / (min(most, left / GRAPH) if left else most))
    pays = graph.convolutions and size >= TAPE_BYTES and not whole
    times = times_of_graph(memory.budget, left, size / parts) if pays else GRAPH
    few = min(FEW, len(batch)) if theta.numel() > LARGE else len(batch)
    steps = {
        "the look at the model": theta.nbytes + LOOK * few * graph.bytes_each,
        "the comparison of derivatives": bytes_of_guard(
            problem, batch, graph.bytes_each + graph.bytes_again
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


def bytes_of_copy(problem: Problem) -> int:
    """Count what the private copy of the model holds."""
    network = problem.network
    tensors = (problem.theta, *network.constants(), *network.module.buffers())
    memory = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}
    return sum(memory.values())


def size_of_graph(problem: Problem, batch: Batch) -> GraphSize:
    """Estimate what the graph of an example's gradient saves, once for a model."""
    return problem.evaluation.facts.known(
        Key(graph_size), partial(on_few, problem, batch, graph_size)
    )


def put_down_block(memory: Memory, rows: Float[Tensor, "k P"]) -> None:
    """Put down what is held for vectors that are multiplied together, beside that for one."""
    further = OF_BLOCK * (rows.nbytes - rows[0].nbytes)
    if further > memory.all_along.get(BLOCK, 0):
        memory.all_along[BLOCK] = further
