"""How many directions a matrix has, counted by weight."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from lossgeom.estimate import Estimate
from lossgeom.linalg.arithmetic import random_numbers
from lossgeom.linalg.frobenius_norm import squared_frobenius_norm
from lossgeom.linalg.operator import LinearOperator, as_operator, real_operator
from lossgeom.linalg.spectral_norm import spectral_norm
from lossgeom.linalg.trace import trace
from lossgeom.messages.wording import one_of

RankKind = Literal["stable", "intrinsic", "participation"]
KINDS: tuple[RankKind, ...] = ("stable", "intrinsic", "participation")


def effective_rank(
    A: LinearOperator | Tensor | Any,
    *,
    kind: RankKind = "stable",
    matvecs: int = 100,
    tol: float = 1e-3,
    seed: int = 0,
) -> Estimate:
    r"""The effective rank of a matrix, in one of three meanings.

    =================  ===================================  =======================================
    kind               definition                           for
    =================  ===================================  =======================================
    ``stable``         :math:`\|A\|_F^2 / \|A\|_2^2`        any m x n matrix; also numerical rank
    ``intrinsic``      :math:`\mathrm{tr} A / \|A\|_2`      positive semi-definite; also intrinsic
                                                            dimension, effective rank
    ``participation``  :math:`(\mathrm{tr} A)^2/\|A\|_F^2`  positive semi-definite; participation
                                                            ratio of the eigenvalues
    =================  ===================================  =======================================

    All are at least 1 and at most the rank, and do not change with the scale; stable <= intrinsic
    <= participation for a positive semi-definite matrix. 0 for the zero matrix. The last two mean
    nothing where eigenvalues have both signs, as a Hessian's may: use the Gauss-Newton matrix.

    The standard error is that of the trace and of the Frobenius norm, to first order; those of a
    ``"participation"`` come from independent probes.

    Cost: ``matvecs`` products for a trace or a Frobenius norm, twice that for
    ``"participation"``, and some 10 with A and its transpose each for a spectral norm.

    Args:
        A: matrix, see :func:`lossgeom.linalg.as_operator`.
        kind: ``"stable"``, ``"intrinsic"`` or ``"participation"``.
        matvecs: products to spend on each random estimate, at least 2.
        tol: of the spectral norm, see :func:`spectral_norm`.
        seed: of the probes, drawn on the CPU from a generator of its own.

    Returns:
        The rank with ``stderr``, infinite where that of the trace or of the Frobenius norm is; not
        converged where the spectral norm is not.

    Raises:
        TypeError: if A is no matrix, or not in float32 or float64.
        ValueError: if A is not square and the kind is not ``"stable"``, the kind is unknown, the
            trace is negative, or matvecs < 2.

    Source: Rudelson and Vershynin, arXiv:math/0503442 (stable); Tropp, arXiv:1501.01571, definition
    7.1.1, and Koltchinskii and Lounici, arXiv:1405.2468 (intrinsic); Gao et al., A theory of
    multineuronal dimensionality (2017) (participation).

    >>> A = torch.diag(torch.tensor([2.0, 1.0, 1.0]))
    >>> [round(effective_rank(A, kind=kind).value, 2) for kind in KINDS]
    [1.5, 2.0, 2.67]
    """
    if kind not in KINDS:
        raise ValueError(f"expected kind to be one of {one_of(KINDS)}, got {kind!r}")
    first, second = _seeds(seed)
    if kind == "stable":
        square = squared_frobenius_norm(real_operator(A), matvecs, first)
        return _quotient(square, spectral_norm(A, tol=tol, seed=second), power=2)
    sum_ = _positive(trace(A, matvecs=matvecs, seed=first))
    if kind == "intrinsic":
        return _quotient(sum_, spectral_norm(A, tol=tol, seed=second), power=1)
    error = _times(2 * sum_.value, sum_.stderr)
    squared_sum = replace(sum_, value=sum_.value**2, stderr=error)
    return _quotient(squared_sum, squared_frobenius_norm(as_operator(A), matvecs, second), power=1)


def _quotient(top: Estimate, bottom: Estimate, power: int) -> Estimate:
    """``top / bottom**power``, with independent errors to first order; 0 for zero."""
    matvecs = top.matvecs + bottom.matvecs
    if bottom.value == 0:
        return Estimate(0.0, bottom.stderr or 0.0, matvecs=matvecs)
    scale = bottom.value**power
    value = top.value / scale
    relative = power * (bottom.stderr or 0.0) / bottom.value
    stderr = math.hypot((top.stderr or 0.0) / scale, _times(value, relative))
    return Estimate(value, stderr, None, top.converged and bottom.converged, matvecs)


def _times(factor: float, stderr: float | None) -> float:
    """The error of a multiple; an infinite one stays so."""
    return math.inf if stderr == math.inf else factor * (stderr or 0.0)


def _positive(sum_: Estimate) -> Estimate:
    if sum_.value < 0:
        raise ValueError(
            "expected a positive semi-definite matrix, but its trace is about "
            f"{sum_.value:.3g}; use kind='stable'"
        )
    return sum_


def _seeds(seed: int) -> list[int]:
    """Two seeds from one, so that errors are independent."""
    generator = random_numbers(seed)
    seeds: list[int] = torch.randint(2**62, (2,), generator=generator).tolist()
    return seeds
