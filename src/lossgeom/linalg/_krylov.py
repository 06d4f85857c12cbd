"""A basis that grows by its own residuals, so that its images need not be kept."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.linalg._checks import ASYMMETRY, check_symmetric
from lossgeom.linalg._orthonormal import AGAIN, OrthonormalBasis, length, lengths
from lossgeom.linalg.probes import BLOCK


class Krylov(OrthonormalBasis):
    r"""Orthonormal rows V and F with :math:`A V^\top = V^\top T + F^\top C`.

    The residual of a Ritz pair with weights s is :math:`F^\top C s`: it is known without the
    image of V. V grows by a vector out of the span of F. From one start vector that is Lanczos
    iteration, with one row in F; a start block and random vectors make F longer. T and C are small
    and in float64.

    Attributes:
        coupling: C.
    """

    coupling: Float[Tensor, "f m"]

    def start(self, directions: Float[Tensor, "j n"]) -> None:
        """Begin with what directions span, or with a random vector."""
        for direction in directions:
            self.append_part(direction)
        if not self.count:
            self.append_random()
        self.of_one_vector = self.count == 1
        self.coupling = torch.zeros(self.count, 0, dtype=torch.float64)
        for rows in torch.split(self.rows, BLOCK):
            self._expand(len(rows))

    def grow(self, direction: Float[Tensor, " f"] | None) -> None:
        """Take one more vector, out of the span of F, or else a random one."""
        if direction is None or not direction.any():
            direction = self._random_direction()
        self._turn(direction / length(direction))
        self._expand(1)

    def _random_direction(self) -> Float[Tensor, " f"]:
        """Outside of F, unless that is all there is."""
        self.of_one_vector = False
        if self.count + len(self.locked) < self.rows.shape[1]:
            self.append_random()
            self.coupling = torch.cat([self.coupling, self.coupling.new_zeros(1, self.size)])
        direction = self.coupling.new_zeros(len(self.coupling))
        direction[-1] = 1
        return direction

    def restart(self, weights: Float[Tensor, "m j"]) -> None:
        """Keep some orthonormal combinations of V only."""
        self.of_one_vector = False
        kept, F = self.vectors(weights), self.rows[self.size :].clone()
        T = weights.T @ self.projection @ weights
        self.projection, self.coupling = (T + T.T) / 2, self.coupling @ weights
        self.count = len(kept) + len(F)
        self.rows[:] = torch.cat([kept, F])

    def residual_norm(self, weights: Float[Tensor, " m"], value: float) -> float:  # noqa: ARG002
        return length(self.coupling @ weights) if len(self.coupling) else 0.0

    def _turn(self, direction: Float[Tensor, " f"]) -> None:
        """Reflect F so that a unit vector of its span comes first."""
        if len(direction) == 1:
            return
        normal = direction.clone()
        normal[0] += 1.0 if direction[0] >= 0 else -1.0
        normal /= normal.norm()
        reflection = torch.eye(len(normal)).to(normal) - 2 * torch.outer(normal, normal)
        F = self.rows[self.size :]
        F[:] = reflection.to(F) @ F
        self.coupling = reflection @ self.coupling

    def _expand(self, b: int) -> None:
        """Move the first rows of F to V, and their residuals to F."""
        m = self.size
        images = self.images(self.rows[m : m + b])
        if not self.finite:
            return
        along, residuals = self._split(images)
        between = along[:, m : m + b]
        if m and not self.checked:
            check_symmetric(self.coupling[:b], along[:, :m], ASYMMETRY * self.spent.norm)
            self.checked = True
        self.projection = torch.cat(
            [
                torch.cat([self.projection, self.coupling[:b].T], dim=1),
                torch.cat([self.coupling[:b], (between + between.T) / 2], dim=1),
            ]
        )
        self.coupling = torch.cat([self.coupling[b:], along[:, m + b :].T], dim=1)
        self._append_residuals(residuals)

    def _split(self, images: Float[Tensor, "b n"]) -> tuple[Tensor, Float[Tensor, "b n"]]:
        """What images are along the rows, and the rest.

        The latest rows, where the most is, come first: one pass over all is then mostly enough.
        """
        b, m = len(images), self.size
        along = torch.zeros(b, self.count, dtype=torch.float64)
        latest, everything = slice(max(0, m - b), m + b), slice(self.count)
        left = None
        for part in (latest, *[everything] * 4):
            coefficients = images @ self.rows[part].T
            images = torch.addmm(images, coefficients, self.rows[part], alpha=-1)
            if len(self.locked):
                images = torch.addmm(images, images @ self.locked.T, self.locked, alpha=-1)
            along[:, part] += coefficients.double().cpu()
            before, left = left, lengths(images)
            if before is not None and ((left > AGAIN * before) | (left <= self.rounding)).all():
                break
        return along, images

    def _append_residuals(self, residuals: Float[Tensor, "b n"]) -> None:
        first = self.count
        for residual in residuals:
            norm = length(residual)
            if norm <= self.rounding:
                continue
            if len(residuals) == 1:
                self.append(residual / norm)
            else:
                self.append_part(residual)
        found = (self.rows[first:] @ residuals.T).double().cpu()
        zeros = found.new_zeros(len(found), self.coupling.shape[1] - len(residuals))
        self.coupling = torch.cat([self.coupling, torch.cat([zeros, found], dim=1)])
