"""Trace by Hutchinson's estimator."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lossgeom.estimate import Estimate
from lossgeom.linalg._arithmetic import plain_arithmetic
from lossgeom.linalg.operator import LinearOperator, as_operator
from lossgeom.linalg.probes import random_signs


def trace(A: LinearOperator | Tensor | Any, *, matvecs: int = 100, seed: int = 0) -> Estimate:
    r"""The trace of a square matrix, with a standard error.

    .. math:: \mathrm{tr} A = E\, z^\top A z

    for probes z of random signs (Hutchinson); the mean over ``matvecs`` of them. With as many
    products as the matrix has columns it is computed exactly, from the diagonal.

    Args:
        A: n x n matrix, see :func:`lossgeom.linalg.as_operator`.
        matvecs: products to spend, at least 2.
        seed: of the probes, drawn on the CPU from a generator of its own.

    Returns:
        The trace with ``stderr`` (0 where it is exact) and ``matvecs``.

    Raises:
        TypeError: if A is no matrix.
        ValueError: if A is not square, or matvecs < 2.

    Source: Hutchinson, A stochastic estimator of the trace (1990).

    >>> trace(torch.diag(torch.tensor([1.0, 2.0, 3.0]))).value
    6.0
    """
    A = as_operator(A)
    n = A.shape[0]
    if A.shape != (n, n):
        raise ValueError(f"expected a square matrix, got one of shape {A.shape}")
    if matvecs < 2:
        raise ValueError(f"expected matvecs of at least 2, got {matvecs}")
    with plain_arithmetic(A.device), torch.no_grad():
        if matvecs >= n:
            return Estimate(A.dense().diagonal().double().sum().item(), stderr=0.0, matvecs=n)
        found = [_quadratic_form(A, z) for z in random_signs(A, matvecs, seed).unbind(1)]
    values = torch.tensor(found, dtype=torch.float64)
    stderr = values.std().item() / math.sqrt(matvecs)
    return Estimate(values.mean().item(), stderr=stderr, matvecs=matvecs)


def _quadratic_form(A: LinearOperator, z: Tensor) -> float:
    return (z.double() @ (A @ z).double()).item()
