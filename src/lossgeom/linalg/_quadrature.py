"""Gauss quadrature of a spectrum, from Lanczos iterations in lockstep."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.linalg._checks import ASYMMETRY, check_symmetric
from lossgeom.linalg._orthonormal import length
from lossgeom.linalg.operator import LinearOperator


class Iteration:
    """Lanczos iteration from one vector, in the operator's own type.

    Against a kept basis a vector is made orthogonal once: that is enough after the recurrence.
    Where an invariant space is complete, the rest of the diagonal repeats its first entry, so that
    nodes of weight 0 lie inside the spectrum.
    """

    def __init__(self, z: Float[Tensor, " n"], steps: int, keep: bool) -> None:
        self.keep, self.rows = keep, z.new_empty(steps if keep else 2, len(z))
        self.rows[0] = z / length(z)
        self.diagonal, self.off = [0.0] * steps, [0.0] * steps
        self.scale, self.ended = 0.0, False

    def vector(self, j: int) -> Float[Tensor, " n"]:
        """What to multiply in step j: Lanczos vector j, or zero where there is none."""
        row = self.rows[j if self.keep else j % 2]
        return torch.zeros_like(row) if self.ended else row

    def take(self, j: int, w: Float[Tensor, " n"], symmetric: bool) -> None:
        """Go on from w, the product of vector j, which is written over."""
        if self.ended:
            return
        v = self.vector(j)
        if j:
            before = self.vector(j - 1)
            if j == 1 and not symmetric:
                tolerance = ASYMMETRY * max(self.scale, length(w))
                check_symmetric(before @ w, torch.tensor(self.off[0]).to(w), tolerance)
            w.sub_(before, alpha=self.off[j - 1])
        alpha = float(v @ w)
        if j == 0:
            self.diagonal = [alpha] * len(self.diagonal)
        self.diagonal[j] = alpha
        w.sub_(v, alpha=alpha)
        if self.keep:
            basis = self.rows[: j + 1]
            w.addmv_(basis.T, basis @ w, alpha=-1)
        self._advance(j, w, alpha)

    def _advance(self, j: int, w: Float[Tensor, " n"], alpha: float) -> None:
        beta = length(w)
        self.scale = max(self.scale, abs(alpha) + beta)
        self.ended = not beta > 10 * torch.finfo(w.dtype).eps * self.scale
        if not self.ended and j + 1 < len(self.off):
            self.off[j] = beta
            torch.div(w, beta, out=self.rows[j + 1 if self.keep else (j + 1) % 2])


def quadrature(
    A: LinearOperator, Z: Float[Tensor, "n k"], steps: int, keep: bool
) -> tuple[Float[Tensor, "k m"], Float[Tensor, "k m"], int]:
    """Nodes, weights and products; one product with a block for each step.

    Weights are 0 where an iteration has ended before the last step.
    """
    iterations = [Iteration(z, steps, keep) for z in Z.T]
    matvecs = 0
    for j in range(steps):
        images = A.matmat(torch.stack([one.vector(j) for one in iterations]).T)
        matvecs += len(iterations)
        for one, image in zip(iterations, images.T, strict=True):
            one.take(j, image.clone(memory_format=torch.contiguous_format), A.T is A)
        if all(one.ended for one in iterations):
            break
    diagonal, off = (
        torch.tensor([getattr(one, part) for one in iterations], dtype=torch.float64)
        for part in ("diagonal", "off")
    )
    T = torch.diag_embed(diagonal)
    T += torch.diag_embed(off[:, :-1], 1) + torch.diag_embed(off[:, :-1], -1)
    if not T.isfinite().all():
        nan = torch.full_like(diagonal, math.nan)
        return nan, nan, matvecs
    nodes, vectors = torch.linalg.eigh(T)
    return nodes, vectors[:, 0, :].square(), matvecs
