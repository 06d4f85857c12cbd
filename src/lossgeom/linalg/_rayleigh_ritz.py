"""Rayleigh-Ritz: eigenpairs of a symmetric operator projected on a growing basis."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.linalg._checks import ASYMMETRY, check_symmetric
from lossgeom.linalg.operator import LinearOperator

Which = Literal["largest", "smallest", "magnitude"]
WHICH: tuple[Which, ...] = ("largest", "smallest", "magnitude")

ROWS = 16  # of a basis, taken at a time


def lengths(rows: Float[Tensor, "j n"]) -> Float[Tensor, " j"]:
    """Euclidean norms in float64, where squares neither vanish nor overflow."""
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)
    if rows.dtype == torch.float64 and not ((norms > 1e-140) & (norms < 1e140)).all():
        largest = rows.abs().amax(1, keepdim=True)
        largest = torch.where((largest > 0) & largest.isfinite(), largest, 1)
        norms = largest[:, 0] * torch.linalg.vector_norm(rows / largest, dim=1)
    return norms


def length(vector: Float[Tensor, " n"]) -> float:
    """Euclidean norm of one vector."""
    return lengths(vector[None]).item()


def preference(values: Tensor, which: Which) -> Tensor:
    """Larger for the eigenvalues that are wanted more."""
    if which == "magnitude":
        return values.abs()
    return values if which == "largest" else -values


@dataclass
class Spent:
    """What a search has used, and the norm of A as far as it has been seen."""

    limit: int
    matvecs: int = 0
    norm: float = 0.0

    @property
    def exhausted(self) -> bool:
        """Whether the limit on products is reached."""
        return self.matvecs >= self.limit


class Basis:
    """Orthonormal rows V, their images, and the projection V A V^T in float64."""

    def __init__(
        self,
        A: LinearOperator,
        spent: Spent,
        generator: torch.Generator,
        capacity: int,
        locked: Float[Tensor, "j n"],
    ) -> None:
        self.A = A
        self.spent = spent
        self.generator = generator
        self.locked = locked
        self.size = 0
        self.finite = True
        self.checked = A.T is A  # symmetric by its own account
        self.V = torch.empty(0, A.shape[1], dtype=A.dtype, device=A.device)
        self.images = torch.empty_like(self.V)
        self.projection = torch.zeros(capacity, capacity, dtype=torch.float64)

    @property
    def room(self) -> int:
        """How many directions there are outside the basis and the locked vectors."""
        return self.V.shape[1] - self.locked.shape[0] - self.size

    def add(self, directions: Float[Tensor, "j n"] | None = None) -> None:
        """Grow by what directions add to the basis; by a random one where that is nothing."""
        first = self.size
        for direction in () if directions is None else directions:
            self._append(self._orthonormal(direction))
        while self.size == first:
            self._append(self._orthonormal(self._random()))
        new = self.V[first : self.size]
        images = self.A.matmat(new.T).T
        self.spent.matvecs += len(new)
        sizes = lengths(images)
        self.finite = self.finite and bool(sizes.isfinite().all())
        self.spent.norm = max(self.spent.norm, sizes.max().item())
        self.images[first : self.size] = images - (images @ self.locked.T) @ self.locked
        rows = (self.images[first : self.size] @ self.V[: self.size].T).double().cpu()
        if first == 0:
            rows = (rows + rows.T) / 2
        elif not self.checked:
            self._check_symmetry(rows[:, :first], first)
        self.projection[first : self.size, : self.size] = rows
        self.projection[: self.size, first : self.size] = rows.T

    def restart(self, weights: Float[Tensor, "m j"]) -> None:
        """Keep some orthonormal combinations of the basis only."""
        m, j = weights.shape
        Y = weights.T.to(self.V)
        self.V[:j], self.images[:j] = Y @ self.V[:m], Y @ self.images[:m]
        kept = weights.T @ self.projection[:m, :m] @ weights
        self.projection[:j, :j] = (kept + kept.T) / 2
        self.size = j

    def _append(self, vector: Float[Tensor, " n"] | None) -> None:
        if vector is None:
            return
        if self.size == len(self.V):
            self.V, self.images = self._longer(self.V), self._longer(self.images)
        self.V[self.size] = vector
        self.size += 1

    def _longer(self, rows: Float[Tensor, "j n"]) -> Float[Tensor, "m n"]:
        """With room for more; on a CPU for all, where memory is taken when it is written to."""
        on_cpu = rows.device.type == "cpu"
        longer = rows.new_empty(len(self.projection) if on_cpu else len(rows) + ROWS, rows.shape[1])
        longer[: len(rows)] = rows
        return longer

    def _random(self) -> Float[Tensor, " n"]:
        draw = torch.randn(self.V.shape[1], generator=self.generator)
        return draw.to(self.V)

    def _orthonormal(self, vector: Tensor) -> Tensor | None:
        norm = length(vector)
        if not norm > 0:
            return None
        vector, V = vector / norm, self.V[: self.size]
        for attempt in range(4):
            vector = vector - V.T @ (V @ vector) - self.locked.T @ (self.locked @ vector)
            norm = length(vector)
            if attempt == 0 and norm < 100 * torch.finfo(vector.dtype).eps:
                return None
            vector = vector / norm
            if norm > 0.7:
                break
        return vector

    def _check_symmetry(self, below: Float[Tensor, "j m"], first: int) -> None:
        """Compare u.(A v) with v.(A u) for the first vectors that follow from products."""
        above = (self.V[first : self.size] @ self.images[:first].T).double().cpu()
        rounding = 1e3 * torch.finfo(self.V.dtype).eps * self.spent.norm
        size = lengths(self.images[: self.size]).max().item()
        check_symmetric(above, below, max(ASYMMETRY * size, rounding))
        self.checked = True


class Ritz:
    """Eigenpairs of A projected on a basis, the most wanted first."""

    def __init__(self, basis: Basis, which: Which) -> None:
        m = basis.size
        self.V, self.images, self.room = basis.V[:m], basis.images[:m], basis.room
        projection = basis.projection[:m, :m]
        self.finite = basis.finite and bool(projection.isfinite().all())
        values, weights = torch.linalg.eigh(projection if self.finite else torch.zeros(m, m))
        order = preference(values, which).argsort(descending=True, stable=True)
        self.values = values[order] if self.finite else torch.full((m,), math.nan)
        self.weights = weights[:, order]
        self.spread = float(self.values.max() - self.values.min())
        self.rounding = 10 * torch.finfo(self.V.dtype).eps * basis.spent.norm
        self._norms: dict[int, float] = {}

    def vectors(self, k: int) -> Float[Tensor, "k n"]:
        """The k most wanted vectors, as rows."""
        rows: Tensor = self.weights[:, :k].T.to(self.V) @ self.V
        return rows

    def residual(self, i: int) -> Float[Tensor, " n"]:
        """A v - lambda v of pair i."""
        y = self.weights[:, i].to(self.V)
        residual: Tensor = y @ self.images - float(self.values[i]) * (y @ self.V)
        return residual

    def residual_norm(self, i: int) -> float:
        """The length of the residual of pair i."""
        if i not in self._norms:
            self._norms[i] = length(self.residual(i))
        return self._norms[i]

    def converged(self, i: int, tol: float) -> bool:
        """Whether pair i is there, with a residual within the tolerance or rounding error.

        The tolerance is relative to the eigenvalue and to the spread of the spectrum as far as it
        has been seen: where the spectrum is far from zero, a random vector has a small residual
        relative to any eigenvalue.
        """
        if not self.finite or i >= len(self.values):
            return False
        scale = min(abs(float(self.values[i])), self.spread)
        return self.residual_norm(i) <= max(tol * scale, self.rounding)

    def first_unconverged(self, k: int, tol: float, guess: int = 0) -> int | None:
        """The most wanted of k pairs that has not converged, or the guess if it has not."""
        if not self.converged(guess, tol):
            return guess
        return next((i for i in range(k) if not self.converged(i, tol)), None)
