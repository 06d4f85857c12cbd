"""An orthonormal basis, as rows, that grows, and an operator projected on it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.linalg.operator import LinearOperator

ROWS = 16  # taken at a time
AGAIN = 0.7  # what loses more of its length by becoming orthogonal has to become so once more


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


class OrthonormalBasis(ABC):
    """Rows that are orthonormal, and orthogonal to those of ``locked``; the first are the basis.

    Attributes:
        projection: A on the basis, in float64.
        finite: whether all products with A were.
        of_one_vector: whether the basis is the Krylov space of its first row.

    Args:
        A: what they are multiplied with.
        spent: counts the products.
        generator: of random vectors.
        capacity: about how many rows there will be.
        locked: orthonormal rows.
    """

    def __init__(
        self,
        A: LinearOperator,
        spent: Spent,
        generator: torch.Generator,
        capacity: int,
        locked: Float[Tensor, "j n"] | None = None,
    ) -> None:
        self.A, self.spent, self.generator = A, spent, generator
        self.projection = torch.zeros(0, 0, dtype=torch.float64)
        self.count, self.finite, self.of_one_vector = 0, True, False
        self.checked = A.T is A  # symmetric by its own account
        self._capacity = capacity
        self._memory = torch.empty(0, A.shape[1], dtype=A.dtype, device=A.device)
        self.locked = self._memory if locked is None else locked

    @property
    def room(self) -> int:
        """How many directions there are outside the basis and the locked rows."""
        return self._memory.shape[1] - len(self.locked) - self.size

    @property
    def size(self) -> int:
        """How many rows make the basis."""
        return len(self.projection)

    @property
    def rounding(self) -> float:
        """What counts as rounding error of a product."""
        return 10 * torch.finfo(self.A.dtype).eps * self.spent.norm

    @property
    def rows(self) -> Float[Tensor, "count n"]:
        """Those that there are."""
        return self._memory[: self.count]

    def vectors(self, weights: Float[Tensor, "m j"]) -> Float[Tensor, "j n"]:
        """Combinations of the basis."""
        rows: Tensor = weights.T.to(self.rows) @ self.rows[: self.size]
        return rows

    @abstractmethod
    def residual_norm(self, weights: Float[Tensor, " m"], value: float) -> float:
        """The length of A v - value v for one of them."""

    def images(self, rows: Float[Tensor, "j n"]) -> Float[Tensor, "j n"]:
        """Products with A."""
        images: Tensor = self.A.matmat(rows.T).T
        self.spent.matvecs += len(rows)
        sizes = lengths(images)
        self.finite = self.finite and bool(sizes.isfinite().all())
        self.spent.norm = max(self.spent.norm, sizes.max().item())
        return images

    def append(self, row: Float[Tensor, " n"]) -> None:
        """One that is orthonormal to the others already."""
        if self.count == len(self._memory):
            self._memory = self.longer(self._memory)
        self._memory[self.count] = row
        self.count += 1

    def append_part(self, direction: Float[Tensor, " n"]) -> bool:
        """What is new in a direction; whether that is anything."""
        row = self._new_part(direction)
        if row is not None:
            self.append(row)
        return row is not None

    def append_random(self) -> None:
        """A random row, orthonormal to the others."""
        while not self.append_part(self.random()):
            pass

    def random(self) -> Float[Tensor, " n"]:
        """A random vector, of normal numbers."""
        draw = torch.randn(self._memory.shape[1], generator=self.generator)
        return draw.to(self._memory)

    def longer(self, memory: Float[Tensor, "j n"]) -> Float[Tensor, "m n"]:
        """With room for more; on a CPU for all, where memory is taken when it is written to."""
        more = len(memory) + ROWS
        rows = max(self._capacity, more) if memory.device.type == "cpu" else more
        longer = memory.new_empty(rows, memory.shape[1])
        longer[: len(memory)] = memory
        return longer

    def _new_part(self, vector: Tensor) -> Tensor | None:
        norm = length(vector)
        if not norm > 0:
            return None
        vector = vector / norm
        for attempt in range(4):
            for others in (self.rows, self.locked):
                vector = vector - (vector @ others.T) @ others
            norm = length(vector)
            if attempt == 0 and norm < 100 * torch.finfo(vector.dtype).eps:
                return None
            vector = vector / norm
            if norm > AGAIN:
                break
        return vector
