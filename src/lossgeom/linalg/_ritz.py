"""The eigenpairs that a Krylov basis holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lossgeom.estimate import Estimate
from lossgeom.linalg._krylov import Krylov
from lossgeom.linalg.arithmetic import lengths
from lossgeom.messages.reprs import html_table, short

Which = Literal["largest", "smallest", "magnitude"]
WHICH: tuple[Which, ...] = ("largest", "smallest", "magnitude")
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
