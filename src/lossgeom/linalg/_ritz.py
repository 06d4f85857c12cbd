"""Eigenpairs of a symmetric operator projected on a basis."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.linalg._orthonormal import OrthonormalBasis

Which = Literal["largest", "smallest", "magnitude"]
WHICH: tuple[Which, ...] = ("largest", "smallest", "magnitude")
SAFETY = 0.9  # of the tolerance, in a search: rounding is in the residual of what it has found


def preference(values: Tensor, which: Which) -> Tensor:
    """Larger for the eigenvalues that are wanted more."""
    if which == "magnitude":
        return values.abs()
    return values if which == "largest" else -values


class Ritz:
    """The pairs, the most wanted first. They are out of date when the basis changes."""

    def __init__(self, basis: OrthonormalBasis, which: Which) -> None:
        projection = basis.projection
        m = len(projection)
        self.basis, self.room, self.rounding = basis, basis.room, basis.rounding
        self.of_one_vector = basis.of_one_vector
        self.finite = basis.finite and bool(projection.isfinite().all())
        values, weights = torch.linalg.eigh(projection if self.finite else torch.zeros(m, m))
        order = preference(values, which).argsort(descending=True, stable=True)
        self.values = values[order] if self.finite else torch.full((m,), math.nan)
        self.weights = weights[:, order]
        self.spread = float(values[-1] - values[0]) if self.finite else math.nan
        self._norms: dict[int, float] = {}

    def vectors(self, k: int) -> Float[Tensor, "k n"]:
        """The k most wanted vectors, as rows."""
        return self.basis.vectors(self.weights[:, :k])

    def residual_norm(self, i: int) -> float:
        """The length of the residual of pair i."""
        if i not in self._norms:
            weights, value = self.weights[:, i], float(self.values[i])
            self._norms[i] = self.basis.residual_norm(weights, value)
        return self._norms[i]

    def note(self, norms: Float[Tensor, " j"]) -> None:
        """Residuals of the most wanted pairs that are known from elsewhere."""
        self._norms |= dict(enumerate(norms.tolist()))

    def scale(self, i: int) -> float:
        """What the tolerance of pair i is relative to.

        That is the eigenvalue and the spread of the spectrum as far as it has been seen: where the
        spectrum is far from zero, a random vector has a small residual relative to any eigenvalue.
        """
        return min(abs(float(self.values[i])), self.spread)

    def converged(self, i: int, tol: float) -> bool:
        """Whether pair i is there, with a residual within the tolerance or rounding error."""
        if not self.finite or i >= len(self.values):
            return False
        return self.residual_norm(i) <= max(SAFETY * tol * self.scale(i), self.rounding)

    def first_unconverged(self, k: int, tol: float, guess: int = 0) -> int | None:
        """The most wanted of k pairs that has not converged, or the guess if it has not."""
        if not self.converged(guess, tol):
            return guess
        return next((i for i in range(k) if not self.converged(i, tol)), None)
