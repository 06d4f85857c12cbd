"""The Frobenius norm from random probes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lossgeom.estimate import Estimate
from lossgeom.linalg._sketch import range_to_take_out, without
from lossgeom.linalg.arithmetic import plain_arithmetic, random_numbers
from lossgeom.linalg.operator import LinearOperator, real_operator
from lossgeom.linalg.probes import (
    columns,
    dots,
    exact_estimate,
    mean_estimate,
    multiply,
    sign_probes,
)
from lossgeom.messages.checks import check_at_least


def frobenius_norm(
    A: LinearOperator | Tensor | Any, *, matvecs: int = 100, seed: int = 0
) -> Estimate:
    r"""The Frobenius norm of an m x n matrix, with a standard error.

    .. math:: \|A\|_F^2 = \|A^\top Q\|_F^2 + E\, \|(I - Q Q^\top) A z\|^2

    for probes z of random signs and any orthonormal Q. As for :func:`trace`, a fifth of the
    products goes into a sketch, and a second fifth, with the transpose, into taking its range Q
    out, if the sketch shows that this makes the error smaller.

    The square is unbiased, and the bias of the norm of the order of ``stderr**2 / value``; its
    standard error is half the relative one of the square. ``value +- t stderr`` is an interval,
    with t of ``matvecs // 2`` degrees of freedom or more.

    Cost: ``matvecs`` products, in blocks of at most 8; memory as :func:`trace`. With min(m, n)
    products or more the norm is exact.

    Args:
        A: matrix of any shape, see :func:`lossgeom.linalg.as_operator`.
        matvecs: products to spend, at least 2.
        seed: of the probes, drawn on the CPU from a generator of its own.

    Returns:
        The norm with ``stderr`` (0 where it is exact, infinite where fewer than 18 samples agree)
        and ``matvecs``; NaN where products are not finite.

    Raises:
        TypeError: if A is no matrix, or not in float32 or float64.
        ValueError: if matvecs < 2.

    Source: Hutchinson's estimator of tr(A^T A); deflation as in Meyer et al., arXiv:2010.09649.

    >>> frobenius_norm(torch.tensor([[3.0, 0.0, 0.0], [0.0, 4.0, 0.0]])).value
    5.0
    """
    square = squared_frobenius_norm(real_operator(A), matvecs, seed)
    norm = math.sqrt(square.value) if square.value >= 0 else math.nan
    spread = square.stderr or 0.0
    stderr = spread / (2 * norm) if norm else math.sqrt(spread)
    return Estimate(norm, stderr, None, square.converged, square.matvecs)


def squared_frobenius_norm(A: LinearOperator, matvecs: int, seed: int) -> Estimate:
    """The squared Frobenius norm, which is estimated without bias."""
    check_at_least(2, matvecs=matvecs)
    with plain_arithmetic(A.device), torch.no_grad():
        if matvecs >= min(A.shape):
            short = A.T if A.shape[0] < A.shape[1] else A
            parts = [block.square().sum() for _, block in columns(short)]
            return exact_estimate(torch.stack(parts).sum().item(), matvecs=short.shape[1])
        return _sampled(A, matvecs, random_numbers(seed))


def _sampled(A: LinearOperator, matvecs: int, generator: torch.Generator) -> Estimate:
    """The mean of squared lengths of products, or of what they add to the range taken out."""
    Q, left = range_to_take_out(A, matvecs, generator, lambda _, Y: dots(Y, Y))
    inside = 0.0 if Q is None else multiply(A.T, Q).double().square().sum().item()
    outside = (without(Q, A.matmat(Z)) for Z in sign_probes(A, left, generator))
    squares = torch.cat([dots(V, V) for V in outside])
    return mean_estimate(squares, torch.finfo(A.dtype).eps * squares, matvecs, inside)
