"""Gauss quadrature of a spectrum, from Lanczos iterations in lockstep."""

from __future__ import annotations

import math
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
    A: LinearOperator, Z: Float[Tensor, "n k"], steps: int, keep: bool
) -> tuple[Quadrature, Float[Tensor, "k j n"]]:
    """Iterate from each column, and return what is found with the bases, if they are to be kept.

    One product with a block for each step. Against a kept basis a vector is made orthogonal once:
    that is enough after the recurrence. Weights are 0 where an iteration has ended before the last
    step, with an invariant space: the rest of its diagonal repeats the first entry, so that these
    nodes lie inside the spectrum.
    """
    V, k = (Z / lengths(Z, 0).to(Z)).T.contiguous(), Z.shape[1]
    basis = V.new_empty(k, steps if keep else 0, len(Z))
    before, matvecs = torch.zeros_like(V), 0
    diagonal, off = V.new_zeros(2, k, steps, dtype=torch.float64)
    beta = scale = diagonal[:, 0].clone()
    going = beta == 0
    for j in range(steps):
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
        if not going.any() or j + 1 == steps:
            break
        beta = off[:, j] = beta.where(going, 0)
        before, V = V, W.div_(beta[:, None].to(W))
        V[~going] = 0
    diagonal, off = diagonal.cpu(), off.cpu()
    T = torch.diag_embed(diagonal)
    T += torch.diag_embed(off[:, :-1], 1) + torch.diag_embed(off[:, :-1], -1)
    if not T.isfinite().all():
        nan = torch.full_like(diagonal, math.nan)
        return Quadrature(nan, nan, nan, T, matvecs), basis
    nodes, vectors = torch.linalg.eigh(T)
    last = beta.where(going, math.inf).cpu()
    residuals = last[:, None] * vectors[:, -1].abs()
    return Quadrature(nodes, vectors[:, 0].square(), residuals, vectors, matvecs), basis
