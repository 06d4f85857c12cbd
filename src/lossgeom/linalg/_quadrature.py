"""Gauss quadrature of a spectrum, from Lanczos iterations in lockstep."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.linalg.arithmetic import lengths
from lossgeom.linalg.operator import ASYMMETRY, LinearOperator, check_symmetric


@dataclass(frozen=True)
class Quadrature:
    """What iterations from some vectors have found.

    Attributes:
        nodes: Ritz values.
        weights: of the nodes.
        residuals: of the Ritz pairs; infinite where an iteration has ended early.
        vectors: of the pairs, in the basis.
        matvecs: products spent.
    """

    nodes: Float[Tensor, "k m"]
    weights: Float[Tensor, "k m"]
    residuals: Float[Tensor, "k m"]
    vectors: Float[Tensor, "k m m"]
    matvecs: int


def quadrature(
    A: LinearOperator,
    Z: Float[Tensor, "n k"],
    steps: int,
    keep: bool,
    most: int = 0,
    more: Callable[[Quadrature], bool] = lambda _: True,
) -> tuple[Quadrature, Float[Tensor, "k j n"]]:
    """Iterate from each column, and return what is found with the bases, if they are to be kept.

    After the steps it goes on up to ``most`` while what is found asks for more. One product with a
    block for each step. Against a kept basis a vector is made orthogonal once: that is enough after
    the recurrence. Weights are 0 where an iteration has ended before the last step, with an
    invariant space: the rest of its diagonal repeats the first entry, so that these nodes lie
    inside the spectrum.
    """
    V, k = (Z / lengths(Z, 0).to(Z)).T.contiguous(), Z.shape[1]
    most = max(most, steps)
    basis = V.new_empty(k, most if keep else 0, len(Z))
    j, before, matvecs = 0, torch.zeros_like(V), 0
    diagonal, off = V.new_zeros(2, k, most, dtype=torch.float64)
    beta = scale = diagonal[:, 0].clone()
    going = beta == 0
    while True:
        W = A.matmat(V.T).T
        matvecs += k
        if j == 1 and A.T is not A:
            tolerance = ASYMMETRY * torch.maximum(scale, lengths(W))
            check_symmetric(torch.linalg.vecdot(before, W), beta, tolerance)
        W = (W - beta[:, None].to(W) * before).contiguous()
        alpha = torch.linalg.vecdot(V, W)
        W -= alpha[:, None] * V
        if keep:
            basis[:, j] = V
            rows = basis[:, : j + 1]
            W[:, None].baddbmm_((rows @ W[:, :, None]).mT, rows, alpha=-1)
        alpha = alpha.double()
        if j == 0:
            diagonal += alpha[:, None]
        diagonal[:, j] = alpha.where(going, diagonal[:, j])
        beta = lengths(W)
        scale = torch.maximum(scale, alpha.abs() + beta)
        going = going & (beta > 10 * torch.finfo(W.dtype).eps * scale)
        m = max(j + 1, steps)
        if not going.any() or j + 1 >= steps:
            found = _found(diagonal[:, :m], off[:, : m - 1], beta.where(going, math.inf), matvecs)
            if not going.any() or j + 1 == most or not more(found):
                return found, basis[:, :m]
        beta = off[:, j] = beta.where(going, 0)
        before, V = V, W.div_(beta[:, None].to(W))
        V[~going] = 0
        j += 1


def _found(
    diagonal: Float[Tensor, "k m"], off: Float[Tensor, "k l"], last: Float[Tensor, " k"], spent: int
) -> Quadrature:
    """The quadratures of tridiagonal matrices that go on with a last entry."""
    diagonal, off = diagonal.cpu(), off.cpu()
    T = torch.diag_embed(diagonal) + torch.diag_embed(off, 1) + torch.diag_embed(off, -1)
    if not T.isfinite().all():
        nan = torch.full_like(diagonal, math.nan)
        return Quadrature(nan, nan, nan, T, spent)
    nodes, vectors = torch.linalg.eigh(T)
    residuals = last.cpu()[:, None] * vectors[:, -1].abs()
    return Quadrature(nodes, vectors[:, 0].square(), residuals, vectors, spent)
