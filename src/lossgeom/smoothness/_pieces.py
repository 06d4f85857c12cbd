"""A batch in pieces that are small enough to be linearised at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from lossgeom.autodiff.linearized import Linearized
from lossgeom.batches import Batch, tensors_of
from lossgeom.linalg.memory import worth_holding
from lossgeom.losses.graphs import with_bytes
from lossgeom.problem import Problem
from lossgeom.smoothness.norms import Method
from lossgeom.smoothness.search import Search

FEW = 4  # examples that show whether they depend on each other, and how large they are
PIECE_BYTES = 32 * 2**20  # about what is worked on at a time: on a CPU, more is no faster
AGAIN = 3  # times what a forward pass saves is saved with the graph of a backward pass

Linearize = Callable[[Batch], Linearized]  # the outputs of a batch with their graph


def pieces(
    problem: Problem, linearize: Linearize, batch: Batch, search: Search
) -> Iterator[tuple[Linearized, Method]]:
    """Yield the linearised outputs of equal parts of a batch, with the method for them."""
    batch = problem.in_examples(batch)
    few = batch.examples(0, FEW)
    shapes = tuple(tensor.shape for tensor in tensors_of(few.raw))
    if shapes not in search.seen:
        search.seen[shapes] = _seen(problem, linearize, few, search)
    method, each = search.seen[shapes]
    for part in parts(batch, worth_holding(problem.theta.device, PIECE_BYTES) / max(each, 1)):
        yield linearize(part), method


def _seen(
    problem: Problem, linearize: Linearize, few: Batch, search: Search
) -> tuple[Method, float]:
    """The method for a few examples, and the bytes that it holds for each."""
    point, sizes = look(problem, linearize, few)
    method = search.choice(point)
    each = sum(sizes) * (AGAIN if method == "lanczos" else 1)
    return method, each + search.numbers(point, method) * point.outputs.element_size()


def look(problem: Problem, linearize: Linearize, few: Batch) -> tuple[Linearized, list[float]]:
    """Linearise a few examples, which must not depend on each other.

    Returns:
        The examples, and the bytes of every tensor that each of them saves.
    """
    point, storages = with_bytes(linearize, few)
    point.check_independent()
    of_all = (problem.theta, *problem.network.constants())
    shared = {tensor.untyped_storage()._cdata for tensor in of_all}
    sizes = (size for storage, size in storages.items() if storage not in shared)
    return point, [size / len(point) for size in sizes]


def parts(batch: Batch, size: float) -> Iterator[Batch]:
    """Cut a batch into equal parts of at most so many examples, and at least one."""
    number = min(math.ceil(len(batch) / size), len(batch)) if size > 0 else len(batch)
    width = math.ceil(len(batch) / max(number, 1))
    for start in range(0, len(batch), width):
        yield batch.examples(start, start + width)
