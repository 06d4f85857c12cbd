"""What a batch's products are made from, kept between products within a memory budget."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from lossgeom.batches import Batch
from lossgeom.diagnosis import guard
from lossgeom.linalg import plain_arithmetic
from lossgeom.problem import Problem, checked_problem

MEMORY_BUDGET = 2 * 2**30

Linear = TypeVar("Linear")
Result = TypeVar("Result")


class KeptGraphs(Generic[Linear]):
    """One linearisation for each batch, and a way to go over all of them.

    The first pass linearises every batch. The graphs of the first batches are kept, as many as fit
    the memory budget; the rest are made anew in every pass.

    Args:
        problem: the loss and where to take it.
        linearize: ``(theta, batch) -> (what is kept, number of terms)``.
        memory_budget: bytes of saved tensors to keep between passes.
    """

    def __init__(
        self,
        problem: Problem,
        linearize: Callable[[Tensor, Batch], tuple[Linear, float]],
        memory_budget: int,
    ) -> None:
        self.problem = checked_problem(problem)
        self._linearize = linearize
        self._memory_budget = memory_budget
        self._theta = problem.leaf()
        self._kept: list[Linear] = []
        self._batches: int | None = None
        self._divisor = 0.0

    @property
    def divisor(self) -> float:
        """What a sum over batches is divided by; known after the first pass."""
        return self._divisor

    def over_batches(self, use: Callable[[Linear], Result]) -> list[Result]:
        """Call a function on what every batch has, in order."""
        with plain_arithmetic(self.problem.theta.device):
            results = [use(linear) for linear in self._kept]
            if len(self._kept) != self._batches:
                results += self._over_the_rest(use)
            return results

    def _over_the_rest(self, use: Callable[[Linear], Result]) -> list[Result]:
        saved, keep = _SavedBytes(), []

        def linearized(batch: Batch) -> tuple[Result, float]:
            guard(self.problem, batch)
            with saved.counted():
                linear, count = self._linearize(self._theta, batch)
            result = use(linear)
            if self._batches is None and saved.bytes <= self._memory_budget:
                keep.append(linear)
            return result, count

        found = self.problem.over_batches(linearized, skip=len(self._kept))
        if self._batches is None:
            self._batches = len(found)
            self._divisor = self.problem.divisor(count for _, count in found)
            self._kept = keep
        return [result for result, _ in found]


class _SavedBytes:
    """Counts the bytes that graphs save, each storage once."""

    def __init__(self) -> None:
        self.bytes = 0
        self._storages: set[int] = set()

    def counted(self) -> saved_tensors_hooks:
        return saved_tensors_hooks(self._pack, _unpack)

    def _pack(self, tensor: Tensor) -> tuple[Tensor, int]:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._storages:
            self._storages.add(storage.data_ptr())
            self.bytes += storage.nbytes()
        # the tensor itself would hold the node that holds it
        return tensor.detach(), tensor._version


def _unpack(saved: tuple[Tensor, int]) -> Tensor:
    """As autograd does without hooks, refuse what was changed in place since."""
    tensor, version = saved
    if tensor._version != version:
        raise RuntimeError(
            "the model changes in place what its derivative needs; autograd refuses its backward "
            "pass, too"
        )
    return tensor
