"""A basis that grows in any direction, with its images."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.linalg._checks import ASYMMETRY, check_symmetric
from lossgeom.linalg._orthonormal import OrthonormalBasis, Spent, length
from lossgeom.linalg.operator import LinearOperator
from lossgeom.linalg.probes import groups


class Basis(OrthonormalBasis):
    """Orthonormal rows V, their images, and the projection V A V^T in float64."""

    def __init__(
        self, A: LinearOperator, spent: Spent, generator: torch.Generator, capacity: int
    ) -> None:
        super().__init__(A, spent, generator, capacity)
        self._image_memory = self.rows

    def add(self, directions: Float[Tensor, "j n"]) -> None:
        """Grow by what directions add to the basis; by a random one where that is nothing."""
        first = self.count
        for direction in directions:
            self.append_part(direction)
        if self.count == first:
            self.append_random()
        new = self.images(self.rows[first:])
        while len(self._image_memory) < self.count:
            self._image_memory = self.longer(self._image_memory)
        self._image_memory[first : self.count] = new
        self._project(first, new)

    def add_random(self, count: int) -> None:
        """Grow by random directions, a block at a time."""
        for size in groups(count):
            self.add(torch.stack([self.random() for _ in range(size)]))

    def restart(self, weights: Float[Tensor, "m j"]) -> None:
        """Keep some orthonormal combinations of the basis only."""
        j = weights.shape[1]
        self.rows[:j], self._image_memory[:j] = self.vectors(weights), self._of_images(weights)
        kept = weights.T @ self.projection @ weights
        self.projection, self.count = (kept + kept.T) / 2, j

    def residuals(
        self, weights: Float[Tensor, "m j"], values: Float[Tensor, " j"]
    ) -> Float[Tensor, "j n"]:
        """A v - value v of some combinations."""
        along = values[:, None].to(self.rows) * self.vectors(weights)
        return self._of_images(weights) - along

    def residual_norm(self, weights: Float[Tensor, " m"], value: float) -> float:
        return length(self.residuals(weights[:, None], weights.new_tensor([value]))[0])

    def _of_images(self, weights: Float[Tensor, "m j"]) -> Float[Tensor, "j n"]:
        rows: Tensor = weights.T.to(self.rows) @ self._image_memory[: self.count]
        return rows

    def _project(self, first: int, new: Float[Tensor, "j n"]) -> None:
        below = (new @ self.rows.T).double().cpu()
        old, square = below[:, :first], below[:, first:]
        if first and not self.checked:
            above = (self.rows[first:] @ self._image_memory[:first].T).double().cpu()
            check_symmetric(above, old, ASYMMETRY * self.spent.norm)
            self.checked = True
        self.projection = torch.cat(
            [
                torch.cat([self.projection, old.T], dim=1),
                torch.cat([old, (square + square.T) / 2], dim=1),
            ]
        )
