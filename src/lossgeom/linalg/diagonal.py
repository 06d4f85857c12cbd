"""The diagonal of a matrix from random probes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.linalg._sketch import range_to_take_out, without
from lossgeom.linalg.arithmetic import plain_arithmetic, random_numbers
from lossgeom.linalg.operator import LinearOperator, square_operator
from lossgeom.linalg.probes import (
    AGREEING_ENTRIES,
    columns,
    multiply,
    sign_probes,
    standard_error,
)
from lossgeom.messages.checks import check_at_least
from lossgeom.messages.reprs import short


@dataclass(frozen=True)
class Diagonal:
    """The diagonal of a matrix, with what is known of its error.

    Attributes:
        values: the entries.
        stderr: standard error of each; 0 where they are exact, infinite where so few samples agree
            that they tell no error.
        matvecs: matrix-vector products spent.
    """

    values: Float[Tensor, " n"]
    stderr: Float[Tensor, " n"]
    matvecs: int

    __repr__ = short

    @property
    def finite(self) -> bool:
        """Whether all products were."""
        return bool(self.values.isfinite().all())


def diagonal(A: LinearOperator | Tensor | Any, *, matvecs: int = 100, seed: int = 0) -> Diagonal:
    r"""The diagonal of a square matrix, with a standard error of each entry.

    .. math:: \mathrm{diag}(A) = \mathrm{diag}(Q Q^\top A) + E\, z \odot (I - Q Q^\top) A z

    for probes z of random signs and any orthonormal Q; entry i has the variance of row i without
    its diagonal. As for :func:`trace`, a fifth of the products goes into a sketch, and a second
    fifth, with the transpose, into taking its range Q out, if the sketch shows that this makes the
    errors smaller on the whole.

    ``values +- t stderr`` are intervals, with t of ``matvecs // 2`` degrees of freedom or more,
    each for its own entry; errors of entries are correlated.

    Cost: ``matvecs`` products, in blocks of at most 8; memory as :func:`trace`. With as many
    products as the matrix has columns the diagonal is exact.

    Args:
        A: n x n matrix, see :func:`lossgeom.linalg.as_operator`; it need not be symmetric.
        matvecs: products to spend, at least 2.
        seed: of the probes, drawn on the CPU from a generator of its own.

    Returns:
        Values and standard errors, in the type of A and on its device: infinite where fewer than 8
        samples agree, NaN where products are not finite.

    Raises:
        TypeError: if A is no matrix, or not in float32 or float64.
        ValueError: if A is not square, or matvecs < 2.

    Source: Bekas, Kokiopoulou and Saad, An estimator for the diagonal of a matrix (2007);
    deflation as in Baston and Nakatsukasa, Diag++, arXiv:2208.03268.

    >>> diagonal(torch.tensor([[1.0, 5.0], [5.0, 2.0]])).values
    tensor([1., 2.])
    """
    A = square_operator(A)
    check_at_least(2, matvecs=matvecs)
    with plain_arithmetic(A.device), torch.no_grad():
        if matvecs >= A.shape[0]:
            values = torch.cat([block[inside].diagonal() for inside, block in columns(A)])
            return _result(A, values, torch.zeros_like(values), A.shape[0])
        return _sampled(A, matvecs, random_numbers(seed))


def _sampled(A: LinearOperator, matvecs: int, generator: torch.Generator) -> Diagonal:
    """The mean of probes with its standard error, without holding them all (Chan et al., 1979)."""
    Q, left = range_to_take_out(A, matvecs, generator, torch.mul)
    mean = squares = largest = torch.zeros(A.shape[0], dtype=torch.float64, device=A.device)
    inside = mean if Q is None else (Q.double() * multiply(A.T, Q)).sum(1)
    seen = 0
    for Z in sign_probes(A, left, generator):
        product = A.matmat(Z)
        samples = Z * without(Q, product).double()
        here, new = samples.mean(1), samples.shape[1]
        squares = squares + (samples - here[:, None]).square().sum(1)
        squares = squares + (here - mean).square() * (seen * new / (seen + new))
        largest = torch.maximum(largest, product.abs().amax(1))
        mean = mean + (here - mean) * (new / (seen + new))
        seen += new
    rounding = torch.finfo(A.dtype).eps * largest
    stderr = standard_error(squares / (left - 1), left, rounding, AGREEING_ENTRIES)
    return _result(A, inside + mean, stderr, matvecs)


def _result(A: LinearOperator, values: Tensor, stderr: Tensor, matvecs: int) -> Diagonal:
    if not values.isfinite().all():
        values = stderr = torch.full_like(values, math.nan)
    return Diagonal(values.to(A.dtype), stderr.to(A.dtype), matvecs)
