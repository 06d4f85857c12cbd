"""Matrices that are made of the Jacobians of batches, which are kept between products."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

from lossgeom.autodiff.batch_jacobian import BatchJacobian
from lossgeom.batches import Batch
from lossgeom.curvature._memory import Kept, Linearization
from lossgeom.linalg import plain_arithmetic
from lossgeom.losses.graphs import with_bytes
from lossgeom.problem import Problem
from lossgeom.trust.trial import guard

Result = TypeVar("Result")


class Jacobians:
    """The Jacobian of every batch, and products with matrices that have them as parts.

    Args:
        problem: the model, the data, and where to take it.
        jacobian: makes that of one batch, at theta.
        memory_budget: bytes to keep between products.
        rows_will_do: as of :func:`lossgeom.trust.trial.guard`.
    """

    def __init__(
        self,
        problem: Problem,
        jacobian: Callable[[Tensor, Batch], BatchJacobian],
        memory_budget: int,
        rows_will_do: bool = False,
    ) -> None:
        self.problem = problem
        self._jacobian = jacobian
        self._rows_will_do = rows_will_do
        self._kept: Kept[BatchJacobian] = Kept(problem, memory_budget)

    def _each(self, use: Callable[[BatchJacobian], Result]) -> list[Result]:
        def made(batch: Batch) -> BatchJacobian:
            return self._jacobian(self._kept.theta, batch).prepared()

        def first(batch: Batch) -> tuple[Result, Linearization[BatchJacobian]]:
            guard(self.problem, batch, rows_will_do=self._rows_will_do)
            jacobian, storages = with_bytes(made, batch)
            return use(jacobian), Linearization(jacobian, 1.0, storages)

        results: list[Result] = []
        self._kept.over_batches(first, lambda batch: use(made(batch)), use, results.append)
        return results

    def push_rows(self, V: Tensor) -> Tensor:
        """Multiply by A, which has the Jacobians one below the other."""
        with _plain(V) as V:
            return torch.cat(self._each(lambda J: _push(J, V)))

    def pull_rows(self, U: Tensor, sizes: Sequence[int], P: int) -> Tensor:
        """Multiply by A^T; A is P wide, and has Jacobians of some heights one below the other."""
        with _plain(U) as U:
            pieces = iter(torch.split(U, list(sizes)))
            total = U.new_zeros(P, U.shape[1])
            self._each(lambda J: _pull(J, next(pieces), total))
            return total

    def push_blocks(self, V: Tensor, widths: Sequence[int]) -> Tensor:
        """Multiply by A, which has Jacobians of some widths as diagonal blocks."""
        with _plain(V) as V:
            pieces = iter(torch.split(V, list(widths)))
            return torch.cat(self._each(lambda J: _push(J, next(pieces))))

    def pull_blocks(self, U: Tensor, heights: Sequence[int]) -> Tensor:
        """Multiply by A^T; A has Jacobians of some heights as diagonal blocks."""
        with _plain(U) as U:
            pieces = iter(torch.split(U, list(heights)))

            def pulled(J: BatchJacobian) -> Tensor:
                total = U.new_zeros(J.leaf.numel(), U.shape[1])
                _pull(J, next(pieces), total)
                return total

            return torch.cat(self._each(pulled))


@contextmanager
def _plain(V: Tensor) -> Iterator[Tensor]:
    """Switch to plain arithmetic, and yield the vectors without a history."""
    with plain_arithmetic(V.device):
        yield V.clone() if V.is_inference() else V.detach()


def _push(J: BatchJacobian, V: Tensor) -> Tensor:
    return torch.stack([J.push(v).reshape(-1) for v in V.unbind(1)], dim=1)


def _pull(J: BatchJacobian, U: Tensor, total: Tensor) -> None:
    """Add J^T U to a total, skipping columns of zeros, as of an identity."""
    for column in U.any(0).nonzero().flatten().tolist():
        total[:, column] += J.pull(U[:, column].reshape(J.outputs.shape)).reshape(-1)
