"""The Krylov basis of a symmetric operator, and the eigenpairs that it holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lossgeom.estimate import Estimate
from lossgeom.linalg.arithmetic import lengths
from lossgeom.linalg.operator import ASYMMETRY, LinearOperator, check_symmetric
from lossgeom.linalg.probes import BLOCK
from lossgeom.reprs import html_table, short

Which = Literal["largest", "smallest", "magnitude"]
WHICH: tuple[Which, ...] = ("largest", "smallest", "magnitude")
ROWS = 16  # of memory taken at a time
AGAIN = 0.7  # what loses more of its length by becoming orthogonal has to become so once more
NEW = 100  # units of rounding by which a vector has to differ from the span of others
SAFETY = 0.9  # of the tolerance, in a search: rounding is in the residual of what it has found


@dataclass
class Products:
    """An operator whose products are counted.

    Attributes:
        limit: how many a search may take.
        spent: how many were taken.
        norm: of A, as far as it has been seen.
        finite: whether all products were, as far as they were looked at.
    """

    A: LinearOperator
    limit: int
    spent: int = 0
    norm: float = 0.0
    finite: bool = True

    @property
    def rounding(self) -> float:
        """What counts as rounding error of a product."""
        return 10 * torch.finfo(self.A.dtype).eps * self.norm

    def of(self, rows: Float[Tensor, "j n"]) -> Float[Tensor, "j n"]:
        """Multiply rows of unit length, a block at a time."""
        images = torch.cat([self.A.matmat(part.T).T for part in torch.split(rows, BLOCK)])
        self.spent += len(rows)
        self.norm = max(self.norm, lengths(images).max().item())
        return images


class Krylov:
    r"""Orthonormal rows V and F with :math:`A V^\top = V^\top T + F^\top C`, and with more rows.

    The residual of a Ritz pair with weights s is :math:`F^\top C s`: it is known without the
    image of V. V grows by a vector out of the span of F. From one start vector that is Lanczos
    iteration, with one row in F; a start block and random vectors make F longer. T and C are small
    and in float64.

    Attributes:
        projection: T.
        coupling: C.
        rows: V, and F below it.
        locked: orthonormal rows that all others are orthogonal to.
        of_one_vector: whether V is the Krylov space of its first row.

    Args:
        products: with A.
        start: rows to begin with; a random one where they span nothing.
        locked: orthonormal rows.
        capacity: about how many rows there will be.
        generator: of random vectors.
    """

    def __init__(
        self,
        products: Products,
        start: Float[Tensor, "j n"],
        locked: Float[Tensor, "l n"],
        capacity: int,
        generator: torch.Generator,
    ) -> None:
        self.products, self.locked, self.generator = products, locked, generator
        self.projection, self._capacity = torch.zeros(0, 0).double(), capacity
        self.rows = self._memory = start[:0]
        self._checked = products.A.T is products.A
        for vector in start:
            self._append(vector)
        count = len(self.rows)
        self.coupling = torch.zeros(count, 0).double()
        if count:
            self._expand(count)
        else:
            self.grow(torch.zeros(0))
        self.of_one_vector = count <= 1

    @property
    def room(self) -> int:
        """How many directions there are outside V and the locked rows."""
        return self._memory.shape[1] - len(self.locked) - len(self.projection)

    def grow(self, direction: Float[Tensor, " f"]) -> None:
        """Move a vector from the span of F to V, or a random one where its direction is zero."""
        if not direction.any():
            self.of_one_vector = False
            if self.room > len(self.coupling):  # there is more than F
                n = self._memory.shape[1]
                while not self._append(torch.randn(n, generator=self.generator).to(self._memory)):
                    pass
                zeros = self.coupling.new_zeros(1, len(self.projection))
                self.coupling = torch.cat([self.coupling, zeros])
            direction = torch.eye(len(self.coupling)).double()[-1]
        if len(direction) > 1:  # turn F so that the direction comes first, up to its sign
            eye = torch.eye(len(direction)).to(direction)
            turn = torch.linalg.qr(torch.cat([direction[:, None], eye], 1))[0]
            F = self.rows[len(self.projection) :]
            F[:] = turn.T.to(F) @ F
            self.coupling = turn.T @ self.coupling
        self._expand(1)

    def restart(self, weights: Float[Tensor, "v j"]) -> None:
        """Keep only some orthonormal combinations of V, and F."""
        v, self.of_one_vector = len(self.projection), False
        kept = torch.cat([weights.T.to(self.rows) @ self.rows[:v], self.rows[v:]])
        T = weights.T @ self.projection @ weights
        self.projection, self.coupling = (T + T.T) / 2, self.coupling @ weights
        self.rows = self._memory[: len(kept)]
        self.rows[:] = kept

    def _expand(self, b: int) -> None:
        """Move the first b rows of F to V, and what is new in their images to F."""
        v = len(self.projection)
        images = self.products.of(self.rows[v : v + b])
        latest = slice(max(0, v - b), v + b)  # where the most is: one pass over all is then enough
        first = images @ self.rows[latest].T
        images = torch.addmm(images, first, self.rows[latest], alpha=-1)
        rounding, since = self.products.rounding, len(self.rows)
        along, residuals = self._split(images, self.rows, rounding)
        along[:, latest] += first.double().cpu()
        if not along.isfinite().all():
            self.products.finite = False
            return
        if v and not self._checked:
            tolerance = ASYMMETRY * self.products.norm
            check_symmetric(self.coupling[:b], along[:, :v], tolerance)
            self._checked = True
        between, C = along[:, v : v + b], self.coupling
        columns = [self.projection, C[:b]], [C[:b].T, (between + between.T) / 2]
        self.projection = torch.cat([torch.cat(column) for column in columns], 1)
        for residual, length in zip(residuals, lengths(residuals).tolist(), strict=True):
            if length > rounding:
                self._append(residual, since)
            elif len(self.locked):  # a small eigenvalue outside of them stands out in it
                self._append(residual)
        new = (self.rows[since:] @ residuals.T).double().cpu()
        rest = torch.cat([C[b:], along[:, v + b :].T], 1)
        self.coupling = torch.cat([rest, torch.cat([new.new_zeros(len(new), v), new], 1)])

    def _split(
        self, vectors: Float[Tensor, "j n"], rows: Float[Tensor, "m n"], rounding: float
    ) -> tuple[Float[Tensor, "j m"], Float[Tensor, "j n"]]:
        """Split vectors in what they are along the rows and what is orthogonal to them."""
        along, left = torch.zeros(len(vectors), len(rows)).double(), lengths(vectors)
        for _ in range(4):
            coefficients = vectors @ rows.T
            vectors = torch.addmm(vectors, coefficients, rows, alpha=-1)
            if len(self.locked):
                vectors = torch.addmm(vectors, vectors @ self.locked.T, self.locked, alpha=-1)
            along += coefficients.double().cpu()
            before, left = left, lengths(vectors)
            if ((left > AGAIN * before) | (left <= rounding)).all():
                break
        return along, vectors

    def _append(self, vector: Float[Tensor, " n"], since: int = 0) -> bool:
        """Append what is new in a vector that is orthogonal to the rows before; tell if any is."""
        length = lengths(vector[None]).item()
        if not length > 0:
            return False
        _, (new,) = self._split((vector / length)[None], self.rows[since:], 0.0)
        length = lengths(new[None]).item()
        if not length > NEW * torch.finfo(new.dtype).eps:
            return False
        count = len(self.rows)
        if count == len(self._memory):  # on a CPU memory is taken when it is written to
            size = count + ROWS
            size = max(self._capacity, size) if new.device.type == "cpu" else size
            self._memory = new.new_empty(size, len(new))
            self._memory[:count] = self.rows
        self._memory[count] = new / length
        self.rows = self._memory[: count + 1]
        return True


def preference(values: Tensor, which: Which) -> Tensor:
    """Numbers that are larger for the eigenvalues that are wanted more."""
    if which == "magnitude":
        return values.abs()
    return values if which == "largest" else -values


@dataclass(frozen=True)
class Ritz:
    """Eigenpairs of the projection on a basis as it is, the most wanted first.

    Attributes:
        values: of T.
        weights: its eigenvectors, as columns.
        residuals: lengths of A v - value v.
        scales: what tolerances are relative to: the eigenvalue, or the spread of the spectrum as
            far as it has been seen if that is less. Where the spectrum is far from zero, a random
            vector has a small residual relative to any eigenvalue.
    """

    basis: Krylov
    values: Float[Tensor, " v"]
    weights: Float[Tensor, "v v"]
    residuals: Float[Tensor, " v"]
    scales: Float[Tensor, " v"]

    @classmethod
    def of(cls, basis: Krylov, which: Which) -> Ritz:
        """Diagonalise the projection on a basis."""
        values, weights = torch.linalg.eigh(basis.projection)
        scales = torch.minimum(values.abs(), values[-1:] - values[:1])
        order = preference(values, which).argsort(descending=True, stable=True)
        weights = weights[:, order]
        residuals = lengths((basis.coupling @ weights).T)
        return cls(basis, values[order], weights, residuals, scales[order])

    def vectors(self, k: int) -> Float[Tensor, "k n"]:
        """The k most wanted Ritz vectors, as rows."""
        rows = self.basis.rows[: len(self.values)]
        vectors: Tensor = self.weights[:, :k].T.to(rows) @ rows
        return vectors

    def converged(self, tol: float) -> Bool[Tensor, " v"]:
        """Which pairs have a residual within the tolerance or rounding error."""
        goals = (SAFETY * tol * self.scales).clamp(min=self.basis.products.rounding)
        return self.residuals <= goals


@dataclass(frozen=True)
class EigenPairs:
    """Eigenvalues and eigenvectors with their true residuals.

    Attributes:
        values: eigenvalues, the most wanted first.
        vectors: orthonormal eigenvectors as columns.
        residuals: at least ``||A v - lambda v||`` of each pair, with what rounding may add.
        converged: which pairs meet the tolerance.
        matvecs: matrix-vector products spent.
        verified: whether better pairs were looked for, and none was found.
    """

    values: Float[Tensor, " k"]
    vectors: Float[Tensor, "n k"]
    residuals: Float[Tensor, " k"]
    converged: Bool[Tensor, " k"]
    matvecs: int
    verified: bool

    __repr__ = short

    def _repr_html_(self) -> str:
        numbers = zip(self.values.tolist(), self.residuals.tolist(), strict=True)
        rows = [
            (str(i + 1), f"{value:.6g}", f"{residual:.2g}", "yes" if self.converged[i] else "no")
            for i, (value, residual) in enumerate(numbers)
        ]
        title = f"EigenPairs, of {self.matvecs} products"
        return html_table(title, [("number", "eigenvalue", "residual", "converged"), *rows])

    @property
    def top(self) -> Estimate:
        """The most wanted eigenvalue."""
        return Estimate(
            self.values[0].item(),
            residual=self.residuals[0].item(),
            converged=bool(self.converged[0]),
            matvecs=self.matvecs,
            verified=self.verified,
        )
