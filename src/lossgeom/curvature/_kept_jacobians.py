"""Matrices that are made of the Jacobians of batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from lossgeom.autodiff.batch_jacobian import BatchJacobian
from lossgeom.curvature._kept_graphs import KeptGraphs
from lossgeom.linalg import plain_arithmetic

Jacobians = KeptGraphs[BatchJacobian]


def push_rows(jacobians: Jacobians, V: Tensor) -> Tensor:
    """A V, with the Jacobians one below the other in A."""
    with _plain(V) as V:
        return torch.cat(jacobians.over_batches(lambda jacobian: _push(jacobian, V)))


def pull_rows(jacobians: Jacobians, U: Tensor, sizes: Sequence[int], P: int) -> Tensor:
    """A^T U, with the Jacobians one below the other in A, P wide, and their heights."""
    with _plain(U) as U:
        pieces = iter(torch.split(U, list(sizes)))
        total = U.new_zeros(P, U.shape[1])
        jacobians.over_batches(lambda jacobian: _pull(jacobian, next(pieces), total))
        return total


def push_blocks(jacobians: Jacobians, V: Tensor, widths: Sequence[int]) -> Tensor:
    """A V, with the Jacobians as diagonal blocks of A."""
    with _plain(V) as V:
        pieces = iter(torch.split(V, list(widths)))
        return torch.cat(jacobians.over_batches(lambda jacobian: _push(jacobian, next(pieces))))


def pull_blocks(jacobians: Jacobians, U: Tensor, heights: Sequence[int]) -> Tensor:
    """A^T U, with the Jacobians as diagonal blocks of A."""
    with _plain(U) as U:
        pieces = iter(torch.split(U, list(heights)))

        def pulled(jacobian: BatchJacobian) -> Tensor:
            total = U.new_zeros(jacobian.leaf.numel(), U.shape[1])
            _pull(jacobian, next(pieces), total)
            return total

        return torch.cat(jacobians.over_batches(pulled))


@contextmanager
def _plain(V: Tensor) -> Iterator[Tensor]:
    """Plain arithmetic, and the vectors without a history."""
    with plain_arithmetic(V.device):
        yield V.clone() if V.is_inference() else V.detach()


def _push(jacobian: BatchJacobian, V: Tensor) -> Tensor:
    return torch.stack([jacobian.push(v).reshape(-1) for v in V.unbind(1)], dim=1)


def _pull(jacobian: BatchJacobian, U: Tensor, total: Tensor) -> None:
    """Add to a total; columns of zeros, as of an identity, cost nothing."""
    for column in U.any(0).nonzero().flatten().tolist():
        u = U[:, column].reshape(jacobian.outputs.shape)
        total[:, column] += jacobian.pull(u).reshape(-1)
