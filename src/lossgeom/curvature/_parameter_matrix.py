"""Symmetric P x P matrices that are sums over batches."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from lossgeom.batches import Batch
from lossgeom.linalg import LinearOperator, plain_arithmetic
from lossgeom.network import graph_nodes
from lossgeom.problem import Problem

MEMORY_BUDGET = 2 * 2**30

Product = Callable[[Tensor], Tensor]


class ParameterMatrix(LinearOperator):
    """The matrix sum_b A_b / sum_b n_b, from a function that gives A_b's product and n_b.

    The first product linearises every batch. What that saves for later products is kept for the
    first batches, as many as fit the memory budget; the rest are linearised anew for each block of
    vectors.

    Args:
        problem: the loss and where to take it.
        memory_budget: bytes of saved tensors to keep between products; 2 GiB.
    """

    def __init__(self, problem: Problem, *, memory_budget: int = MEMORY_BUDGET) -> None:
        if not isinstance(problem, Problem):
            raise TypeError(
                f"expected a Problem(model, loss, batches), got {type(problem).__name__}"
            )
        self.problem = problem
        self.memory_budget = memory_budget
        self._theta = problem.leaf()
        self._kept: list[Product] = []
        self._batches: int | None = None
        self._divisor = 0.0

    @abstractmethod
    def linearize(self, theta: Tensor, batch: Batch) -> tuple[Product, float]:
        """The product with one batch's summed matrix at theta, and its number of terms."""

    @property
    def shape(self) -> tuple[int, int]:
        P = self.problem.theta.numel()
        return P, P

    @property
    def dtype(self) -> torch.dtype:
        return self.problem.theta.dtype

    @property
    def device(self) -> torch.device:
        return self.problem.theta.device

    @property
    def T(self) -> LinearOperator:  # noqa: N802
        return self

    def matmat(self, V: Float[Tensor, "P k"]) -> Float[Tensor, "P k"]:
        with plain_arithmetic(self.device):
            V = V.clone() if V.is_inference() else V.detach()
            total = torch.zeros_like(V)
            for product in self._kept:
                _accumulate(total, product, V)
            if len(self._kept) != self._batches:
                self._linearize_rest(total, V)
            return total / self._divisor

    def _linearize_rest(self, total: Tensor, V: Tensor) -> None:
        saved, keep = _SavedBytes(), []

        def multiply(batch: Batch) -> float:
            with saved.counted():
                product, count = self.linearize(self._theta, batch)
            _accumulate(total, product, V)
            if self._batches is None and saved.bytes <= self.memory_budget:
                keep.append(product)
            return count

        counts = self.problem.over_batches(multiply, skip=len(self._kept))
        if self._batches is None:
            self._batches, self._divisor = len(counts), self.problem.divisor(counts)
            self._kept = keep


def check_differentiable_again(gradient: Tensor) -> None:
    """Refuse a gradient with a part that has no derivative; autograd would take it as zero."""
    if any("Error" in node.name() for node in graph_nodes(gradient)):
        raise ValueError(
            "the model uses an operation without second derivatives (such as a "
            "once_differentiable function); a curvature matrix would be wrong"
        )


def _accumulate(total: Tensor, product: Product, V: Tensor) -> None:
    for column in range(V.shape[1]):
        total[:, column] += product(V[:, column])


class _SavedBytes:
    """Counts the bytes that graphs save, each storage once."""

    def __init__(self) -> None:
        self.bytes = 0
        self._storages: set[int] = set()

    def counted(self) -> saved_tensors_hooks:
        return saved_tensors_hooks(self._pack, _unpack)

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._storages:
            self._storages.add(storage.data_ptr())
            self.bytes += storage.nbytes()
        return tensor.detach()  # the tensor itself would hold the node that holds it


def _unpack(tensor: Tensor) -> Tensor:
    return tensor
