"""What a product with a matrix needs in memory, from a look at a few examples."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

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


@dataclass(frozen=True)
class NeededMemory:
    """What the steps of a first product need.

    Attributes:
        problem: the model.
        batch: that it is made with.
        graph: of the gradient of an example.
        whole: whether the batch must not be cut, and no product be recorded.
    """

    problem: Problem
    batch: Batch
    graph: GraphSize
    whole: bool

    @property
    def size(self) -> float:
        """Bytes that the graph of the gradient saves, for the whole batch."""
        return len(self.batch) * self.graph.bytes_each

    @property
    def vectors(self) -> int:
        """Bytes of what is as large as parameters, for one vector."""
        return VECTORS * self.problem.theta.nbytes + int(self.graph.bytes_shared)

    @property
    def copy(self) -> int:
        """Bytes of the private copy of the model."""
        network = self.problem.network
        tensors = (self.problem.theta, *network.constants(), *network.module.buffers())
        memory = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}
        return sum(memory.values())

    def parts(self, memory: Memory) -> float:
        """The least number of parts of a batch whose graphs are not too large.

        Below twice theta, vectors take more than graphs.
        """
        theta = self.problem.theta
        most = max(worth_holding(theta.device, PIECE_BYTES), 2 * theta.nbytes)
        left = self._left(memory)
        return 1 if self.whole else max(1, self.size / (min(most, left / GRAPH) if left else most))

    def _left(self, memory: Memory) -> float:
        """What a budget leaves for graphs; zero where there is none, or too little."""
        needed = self.copy + self.vectors + WORKSPACE + memory.all_along.get(BLOCK, 0)
        return max(0, (memory.budget or 0) - needed)

    def forward(self, memory: Memory, parts: float) -> bool:
        """Whether there is room for forward mode, where it pays."""
        return self.times(memory, parts) > GRAPH

    def times(self, memory: Memory, parts: float) -> float:
        """How many times what a graph saves a product takes: most in forward mode, if that pays."""
        size, budget = self.size / parts, memory.budget
        if self.whole or not self.graph.convolutions or self.size < TAPE_BYTES:
            return GRAPH
        if budget == 0:
            return FORWARD if size < LARGE_TAPE else GRAPH
        return RECORDED if budget is None or RECORDED * size <= self._left(memory) else GRAPH

    def put_down(self, memory: Memory, parts: float) -> None:
        """Put down the copy, and each step of a product that is made in parts.

        What another batch needed stays.
        """
        problem, n, times = self.problem, len(self.batch), self.times(memory, parts)
        seen = min(FEW, n) if problem.theta.numel() > LARGE else n
        steps = {
            "the look at the model": problem.theta.nbytes + LOOK * seen * self.graph.bytes_each,
            "the comparison of derivatives": bytes_of_guard(
                problem, self.batch, self.graph.bytes_each
            ),
            "a product": self.vectors + times * self.size / parts,
        }
        if parts > 1:
            whole_and_part = OUTPUTS * self.size * (1 + 1 / parts)
            steps["the comparison of parts"] = self.vectors + whole_and_part
        memory.all_along.update({"a copy of the model": self.copy, "workspace": WORKSPACE})
        for what, nbytes in steps.items():
            memory.steps[what] = max(memory.steps.get(what, 0), int(nbytes))


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
