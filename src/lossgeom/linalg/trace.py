"""Trace from random probes, without the variance of its largest eigenvalues."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from lossgeom.estimate import Estimate
from lossgeom.linalg._sketch import range_to_take_out, without
from lossgeom.linalg.arithmetic import plain_arithmetic, random_numbers
from lossgeom.linalg.operator import LinearOperator, square_operator
from lossgeom.linalg.probes import (
    columns,
    dots,
    exact_estimate,
    mean_estimate,
    multiply,
    sign_probes,
)
from lossgeom.messages.checks import check_at_least
from lossgeom.messages.wording import one_of

Method = Literal["adaptive", "hutchinson"]
METHODS: tuple[Method, ...] = ("adaptive", "hutchinson")


def trace(
    A: LinearOperator | Tensor | Any,
    *,
    matvecs: int = 100,
    method: Method = "adaptive",
    seed: int = 0,
) -> Estimate:
    r"""The trace of a square matrix, with a standard error.

    .. math:: \mathrm{tr} A = \mathrm{tr}(Q^\top A Q)
        + E\, z^\top (I - Q Q^\top) A (I - Q Q^\top) z

    for probes z of random signs and any orthonormal Q. The variance of the second term is that of
    what Q leaves of A. ``"hutchinson"`` takes no Q. ``"adaptive"`` spends a fifth of the products
    on a sketch A S, and a second fifth on its range Q (Hutch++) if, by what the sketch shows, the
    standard error falls by that: it does where few eigenvalues are much larger than the rest, and
    does not where they are alike or A is nearly diagonal. Given the sketch, which is used for
    nothing else, the estimate is unbiased and its probes are independent.

    ``value +- t stderr`` is an interval, with t the quantile of Student's distribution for
    ``matvecs // 2`` degrees of freedom or more. Rounding is not in it.

    Cost: ``matvecs`` products, in blocks of at most 8; memory for the sketch, ``matvecs`` n / 5
    numbers and as many twice more. With as many products as the matrix has columns the trace is
    exact.

    Args:
        A: n x n matrix, see :func:`lossgeom.linalg.as_operator`; it need not be symmetric.
        matvecs: products to spend, at least 2. Below 15, ``"adaptive"`` takes no sketch.
        method: ``"adaptive"`` or ``"hutchinson"``.
        seed: of the probes, drawn on the CPU from a generator of its own.

    Returns:
        The trace with ``stderr`` (0 where it is exact, infinite where fewer than 18 samples agree)
        and ``matvecs``; NaN where products are not finite.

    Raises:
        TypeError: if A is no matrix, or not in float32 or float64.
        ValueError: if A is not square, matvecs < 2 or the method is unknown.

    Source: Hutchinson, A stochastic estimator of the trace (1990); Meyer et al., Hutch++,
    arXiv:2010.09649; the choice from Epperly, Tropp and Webber, XTrace, arXiv:2301.07825.

    >>> trace(torch.diag(torch.tensor([1.0, 2.0, 3.0]))).value
    6.0
    """
    A = square_operator(A)
    check_at_least(2, matvecs=matvecs)
    if method not in METHODS:
        raise ValueError(f"expected method to be one of {one_of(METHODS)}, got {method!r}")
    with plain_arithmetic(A.device), torch.no_grad():
        if matvecs >= A.shape[0]:
            parts = [block[inside].trace() for inside, block in columns(A)]
            return exact_estimate(torch.stack(parts).sum().item(), matvecs=A.shape[0])
        return _sampled(A, matvecs, method, random_numbers(seed))


def _sampled(
    A: LinearOperator, matvecs: int, method: Method, generator: torch.Generator
) -> Estimate:
    Q, left = None, matvecs
    if method == "adaptive":
        Q, left = range_to_take_out(A, matvecs, generator, dots)
    inside = 0.0 if Q is None else dots(Q, multiply(A, Q)).sum().item()
    forms, rounding = [], []
    for Z in sign_probes(A, left, generator):
        probes = without(Q, Z)
        products = A.matmat(probes)
        forms.append(dots(probes, products))
        sizes = (dots(probes, probes) * dots(products, products)).sqrt()
        rounding.append(torch.finfo(A.dtype).eps * sizes)
    return mean_estimate(torch.cat(forms), torch.cat(rounding), matvecs, inside)
