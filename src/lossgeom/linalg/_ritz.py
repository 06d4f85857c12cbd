"""The eigenpairs that a Krylov basis holds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lossgeom.estimate import Estimate
from lossgeom.linalg._krylov import Krylov
from lossgeom.linalg.arithmetic import lengths
from lossgeom.linalg.operator import LinearOperator
from lossgeom.messages.reprs import html_table, short

Which = Literal["largest", "smallest", "magnitude"]
WHICH: tuple[Which, ...] = ("largest", "smallest", "magnitude")
GROWTH = 100.0  # so that a hundredth of a random vector's typical share would be seen
FAR, PLACES = 3, 200  # beyond a pair, where a polynomial is to grow: powers of ten, and numbers
MARGIN = 10.0  # tolerances by which a pair that is looked for exceeds the one found
SAFETY = 0.9  # of the tolerance, in a search: rounding is in the residual of what it has found


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
        return vectors.div_(lengths(vectors)[:, None].to(vectors))

    def converged(self, tol: float) -> Bool[Tensor, " v"]:
        """Which pairs have a residual within the tolerance or rounding error."""
        goals = (SAFETY * tol * self.scales).clamp(min=self.basis.products.rounding)
        return self.residuals <= goals

    def shown(self, tol: float, which: Which) -> bool:
        """Whether the start would have shown any eigenvalue beyond the best by ten tolerances.

        Of an eigenvector there the Ritz vector has what its polynomial, if that grows from there
        on, makes of a hundredth of the start's typical share, and what its residual allows at most.
        """
        basis, products = self.basis, self.basis.products
        if not (basis.room and products.norm):
            return True
        if not (products.finite and basis.of_one_vector and self.converged(tol)[0]):
            return False
        best, residual = float(self.values[0]), float(self.residuals[0])
        hidden = max(residual, products.rounding) * GROWTH * products.A.shape[0] ** 0.5
        sign = {"largest": 1.0, "smallest": -1.0, "magnitude": math.copysign(1, best)}[which]
        steps = torch.logspace(math.log10(MARGIN * tol), FAR, PLACES).double()
        steps *= sign * abs(best)
        for beyond in [steps, -2 * best - steps] if which == "magnitude" else [steps]:
            sizes = basis.polynomials.sizes_at(best + beyond, self.weights[:, 0])
            sizes += beyond.abs().log()
            if not (sizes[0] >= math.log(hidden) and (sizes.diff() >= 0).all()):
                return False
        return True


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


def unknown_pairs(k: int, A: LinearOperator, matvecs: int) -> EigenPairs:
    """The pairs of a matrix whose products are not finite."""
    nan, nothing = torch.full((k,), math.nan, dtype=A.dtype), torch.zeros(k).bool()
    vectors = torch.full((A.shape[0], k), math.nan, dtype=A.dtype, device=A.device)
    return EigenPairs(nan, vectors, nan, nothing, matvecs, verified=False)
