"""Gauss quadrature of a spectrum, from Lanczos iterations in lockstep."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.linalg._checks import ASYMMETRY, check_symmetric
from lossgeom.linalg.operator import LinearOperator


class Lockstep:
    """Lanczos iterations from several vectors, one product with a block for each step.

    Vectors are rows in float64; a kept basis is in the operator's own type.
    """

    def __init__(self, A: LinearOperator, Z: Float[Tensor, "n k"], steps: int, keep: bool) -> None:
        n, k = Z.shape
        self.A, self.steps = A, steps
        self.v = torch.nn.functional.normalize(Z.T.double(), dim=1)
        self.before = torch.zeros_like(self.v)
        self.basis = torch.empty(k, steps if keep else 0, n, dtype=A.dtype, device=A.device)
        self.diagonal = self.v.new_zeros(k, steps)
        self.off = self.v.new_zeros(k, steps)
        self.scale = self.v.new_zeros(k)
        self.matvecs = 0

    def quadrature(self) -> tuple[Float[Tensor, "k m"], Float[Tensor, "k m"]]:
        """Nodes and weights; weight 0 where an iteration has ended before the last step."""
        for j in range(self.steps):
            if not self._step(j):
                break
        diagonal, off = self.diagonal.cpu(), self.off.cpu()[:, :-1]
        T = torch.diag_embed(diagonal) + torch.diag_embed(off, 1) + torch.diag_embed(off, -1)
        if not T.isfinite().all():
            return torch.full_like(diagonal, math.nan), torch.full_like(diagonal, math.nan)
        nodes, vectors = torch.linalg.eigh(T)
        return nodes, vectors[:, 0, :].square()

    def _step(self, j: int) -> bool:
        """Whether there is a next one."""
        w = self.A.matmat(self.v.T.to(self.A.dtype)).T.double()
        self.matvecs += len(w)
        coupling = self.off[:, j - 1]  # of step -1, which has not been written, it is zero
        if j == 1 and self.A.T is not self.A:  # not symmetric by its own account
            lengths = torch.maximum(self.scale, w.norm(dim=1))
            check_symmetric((self.before * w).sum(1), coupling, ASYMMETRY * lengths)
        alpha = (self.v * w).sum(1)
        going = self.v.any(1)
        if j == 0:
            self.diagonal += alpha[:, None]  # where an iteration ends, nodes inside the spectrum
        else:
            self.diagonal[:, j] = torch.where(going, alpha, self.diagonal[:, 0])
        w = w - alpha[:, None] * self.v - coupling[:, None] * self.before
        w = self._orthogonal(w, j)
        beta = w.norm(dim=1)
        self.scale = torch.maximum(self.scale, alpha.abs() + beta)
        going = beta > 10 * torch.finfo(self.A.dtype).eps * self.scale
        self.off[:, j] = torch.where(going, beta, 0)
        self.before, self.v = self.v, torch.where(going[:, None], w / beta[:, None], 0)
        return bool(going.any())

    def _orthogonal(self, w: Float[Tensor, "k n"], j: int) -> Float[Tensor, "k n"]:
        """Once against the basis, if kept: enough after the recurrence."""
        if not self.basis.shape[1]:
            return w
        self.basis[:, j] = self.v
        V = self.basis[:, : j + 1]
        coefficients = V @ w.to(V.dtype)[:, :, None]
        return w - (coefficients.mT @ V)[:, 0].double()
