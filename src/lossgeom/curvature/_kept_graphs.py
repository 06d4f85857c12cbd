"""What a batch's products are made from, kept between products within a memory budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import Tensor

from lossgeom.autodiff.saved_tensors import with_bytes
from lossgeom.batches import Batch
from lossgeom.linalg import plain_arithmetic
from lossgeom.problem import Problem, checked_problem
from lossgeom.problem.isolation import hooks_undone
from lossgeom.trust.trial import guard

MEMORY_BUDGET = 2 * 2**30

Linear = TypeVar("Linear")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Linearization(Generic[Linear]):
    """What products with one batch are made from.

    Attributes:
        linear: makes them.
        count: the number of terms of the batch.
        storages: bytes that are held for it, by the memory that they are in.
    """

    linear: Linear
    count: float
    storages: dict[int, int]


Linearize = Callable[[Tensor, Batch], Linearization[Linear]]


class KeptGraphs(Generic[Linear]):
    """One linearisation for each batch, or piece of one, and a way to go over all of them.

    The first pass linearises every piece. The first of them are kept, as many as fit the memory
    budget; the rest are made anew in every pass.

    Args:
        problem: the loss and where to take it.
        linearize: what to do for each piece.
        memory_budget: bytes to keep between passes.
        cut: cuts a batch in pieces; by default it stays whole.
        again: makes products in later passes, for what is not kept; by default like the first time.
        rows_will_do: as of :func:`lossgeom.trust.trial.guard`.
    """

    def __init__(
        self,
        problem: Problem,
        linearize: Linearize[Linear],
        memory_budget: int,
        cut: Callable[[Batch], Sequence[Batch]] = lambda batch: [batch],
        again: Callable[[Tensor, Batch], Linear] | None = None,
        rows_will_do: bool = False,
    ) -> None:
        self.problem = checked_problem(problem)
        self._linearize = linearize
        self._again = again or (lambda theta, piece: linearize(theta, piece).linear)
        self._memory_budget = memory_budget
        self._cut = cut
        self._rows_will_do = rows_will_do
        self._theta = problem.leaf()
        self._kept: dict[tuple[int, int], Linear] = {}  # by batch and piece
        self._all_kept = False
        self._divisor: float | None = None

    @property
    def divisor(self) -> float:
        """What a sum over batches is divided by; known after the first pass."""
        return 0.0 if self._divisor is None else self._divisor

    def over_batches(self, use: Callable[[Linear], Result]) -> list[Result]:
        """Call a function on what every piece has, in order."""
        with plain_arithmetic(self.problem.theta.device), hooks_undone():
            if self._all_kept:
                return [use(linear) for linear in self._kept.values()]
            if self._divisor is None:
                return self._first_pass(use)
            found = self.problem.over_batches(lambda batch: self._batch_again(batch, use))
            return [result for results in found for result in results]

    def _first_pass(self, use: Callable[[Linear], Result]) -> list[Result]:
        storages: dict[int, int] = {}
        kept: dict[tuple[int, int], Linear] = {}
        pieces = 0

        def linearized(batch: Batch) -> list[tuple[Result, float]]:
            nonlocal pieces
            guard(self.problem, batch, rows_will_do=self._rows_will_do)
            found = []
            for place, piece in enumerate(self._cut(batch)):
                made = self._linearize(self._theta, piece)
                found.append((use(made.linear), made.count))
                storages.update(made.storages)
                if len(kept) == pieces and sum(storages.values()) <= self._memory_budget:
                    kept[batch.index, place] = made.linear
                pieces += 1
            return found

        passed = self.problem.over_batches(linearized)
        found = [one for results in passed for one in results]
        _, self._divisor = self.problem.reduced((0.0, count) for _, count in found)
        self._kept, self._all_kept = kept, len(kept) == pieces
        return [result for result, _ in found]

    def _batch_again(self, batch: Batch, use: Callable[[Linear], Result]) -> list[Result]:
        results = []
        for place, piece in enumerate(self._cut(batch)):
            kept = self._kept.get((batch.index, place))
            results.append(use(self._again(self._theta, piece) if kept is None else kept))
        return results


def with_graphs(
    linearize: Callable[[Tensor, Batch], tuple[Linear, float]],
) -> Linearize[Linear]:
    """Count what autograd's graphs hold, for a function that makes such."""

    def counted(theta: Tensor, batch: Batch) -> Linearization[Linear]:
        (linear, count), storages = with_bytes(lambda: linearize(theta, batch))
        return Linearization(linear, count, storages)

    return counted
