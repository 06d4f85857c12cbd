"""How a batch is cut in pieces, from a look at a few of its examples."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from lossgeom.autodiff.linearized import Linearized
from lossgeom.autodiff.memory_budget import with_sizes
from lossgeom.batches import Batch
from lossgeom.problem import Problem
from lossgeom.smoothness.norms import Method
from lossgeom.smoothness.search import Search

FEW = 4  # examples that show whether they depend on each other, and how large they are
PIECE_BYTES = 32 * 2**20  # about what is worked on at a time: more is no faster
AGAIN = 3  # times what a forward pass saves is saved with the graph of a backward pass


@runtime_checkable
class Function(Protocol):
    """What gives the outputs of a batch with their graph."""

    @property
    def problem(self) -> Problem:
        """In eval mode."""
        ...

    def at(self, batch: Batch) -> Linearized:
        """The outputs of a batch."""
        ...


def pieces(function: Function, batch: Batch, search: Search) -> Iterator[tuple[Linearized, Method]]:
    """The function at equal parts of a batch, with the method for them."""
    batch = function.problem.in_examples(batch)
    few, saved = _look(function, batch.examples(0, FEW))
    method = search.choice(few)
    each = saved * (AGAIN if method == "lanczos" else 1)
    each += search.numbers(few, method) * few.outputs.element_size()
    parts = math.ceil(min(len(batch) * each / PIECE_BYTES, len(batch)))
    size = math.ceil(len(batch) / max(parts, 1))
    del few
    for start in range(0, len(batch), size):
        yield function.at(batch.examples(start, start + size)), method


def _look(function: Function, batch: Batch) -> tuple[Linearized, float]:
    """A few examples, which must not depend on each other, and what each of them saves."""
    few, sizes = with_sizes(function.problem, lambda: function.at(batch))
    few.check_independent()
    return few, sum(sizes) / len(few)
