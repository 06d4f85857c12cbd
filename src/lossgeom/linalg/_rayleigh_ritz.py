"""Rayleigh-Ritz: eigenpairs of a symmetric operator projected on a growing basis."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.linalg.operator import LinearOperator

Which = Literal["largest", "smallest", "magnitude"]
WHICH: tuple[Which, ...] = ("largest", "smallest", "magnitude")


ROWS_AT_A_TIME = 16


def length(vector: Tensor) -> float:
    """Euclidean norm, scaled so that squares neither vanish nor overflow."""
    largest = float(vector.abs().max())
    if not 0 < largest < math.inf:
        return largest
    return largest * float(torch.linalg.vector_norm(vector / largest, dtype=torch.float64))


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
        self.V = torch.empty(0, A.shape[1], dtype=A.dtype, device=A.device)
        self.images = torch.empty_like(self.V)
        self.projection = torch.zeros(capacity, capacity, dtype=torch.float64)

    @property
    def room(self) -> int:
        """How many directions there are outside the basis and the locked vectors."""
        return self.V.shape[1] - self.locked.shape[0] - self.size

    def add(self, direction: Tensor | None) -> None:
        """Grow by a direction; by a random one where it is None or lies in the basis already."""
        vector = None if direction is None else self._orthonormal(direction)
        while vector is None:
            vector = self._orthonormal(self._random())
        if self.size == len(self.V):
            more = vector.new_empty(ROWS_AT_A_TIME, len(vector))
            self.V, self.images = torch.cat([self.V, more]), torch.cat([self.images, more])
        m, image = self.size, self.A @ vector
        self.spent.matvecs += 1
        self.spent.norm = max(self.spent.norm, length(image))
        self.V[m], self.images[m] = vector, image - self.locked.T @ (self.locked @ image)
        column = (self.V[: m + 1] @ self.images[m]).double().cpu()
        self.projection[: m + 1, m] = self.projection[m, : m + 1] = column
        self.size = m + 1
        if self.size == 2 and self.A.T is not self.A:  # not symmetric by its own account
            self._check_symmetry()

    def restart(self, ritz: Ritz, keep: int) -> None:
        """Keep the best Ritz vectors only."""
        Y = ritz.weights[:, :keep].T.to(self.V)
        self.V[:keep], self.images[:keep] = Y @ self.V[: self.size], Y @ self.images[: self.size]
        self.projection.zero_()
        self.projection[:keep, :keep] = torch.diag(ritz.values[:keep])
        self.size = keep

    def _random(self) -> Float[Tensor, " n"]:
        draw = torch.randn(self.V.shape[1], generator=self.generator, dtype=torch.float64)
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

    def _check_symmetry(self) -> None:
        above, below = float(self.images[0] @ self.V[1]), float(self.images[1] @ self.V[0])
        rounding = 1e3 * torch.finfo(self.V.dtype).eps * self.spent.norm
        if abs(above - below) > max(0.01 * length(self.images[:2]), rounding):
            raise ValueError(
                "expected a symmetric operator, but u.(A v) and v.(A u) differ: "
                f"{above:.6g} and {below:.6g}"
            )


class Ritz:
    """Eigenpairs of A projected on a basis, the most wanted first."""

    def __init__(self, basis: Basis, which: Which) -> None:
        m = basis.size
        self.V, self.images, self.room = basis.V[:m], basis.images[:m], basis.room
        projection = basis.projection[:m, :m]
        self.finite = bool(projection.isfinite().all() and self.images[m - 1].isfinite().all())
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

    def first_unconverged(self, k: int, tol: float) -> int | None:
        """The most wanted of k pairs that has not converged."""
        return next((i for i in range(k) if not self.converged(i, tol)), None)
