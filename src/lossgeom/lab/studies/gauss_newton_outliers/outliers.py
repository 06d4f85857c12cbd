"""The outliers of a spectrum, and whether two matrices have the same ones."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from lossgeom.linalg import EigenPairs


def number_of_outliers(values: Float[Tensor, " k"], gap: float) -> float:
    """How many of the largest eigenvalues lie above the largest relative gap among them.

    Args:
        values: the k largest eigenvalues, descending. Those that are zero, up to rounding, or
            negative lie below every gap.
        gap: an outlier is at least so many times what lies below: without such a gap there is none.

    Returns:
        Their number, from 0 to k - 1; NaN if a value is not finite.

    >>> from torch import tensor
    >>> number_of_outliers(tensor([9.0, 8.0, 2.0, 1.5]), gap=1.5)
    2.0
    >>> number_of_outliers(tensor([1.3, 1.2, 1.1, 1.0]), gap=1.5)
    0.0
    """
    if not values.isfinite().all():
        return math.nan
    if values[0] <= 0:
        return 0.0
    ratios = values[:-1] / values[1:].clamp(min=1e-6 * float(values[0]))
    largest = int(ratios.argmax())
    return float(largest + 1) if ratios[largest] >= gap else 0.0


def overlap(V: Float[Tensor, "n k"], W: Float[Tensor, "n k"]) -> float:
    r"""Mean squared cosine of the angles between two k-dimensional spaces.

    .. math:: \| V^\top W \|_F^2 / k

    It is 1 for the same space and k / n for random ones; the bases must be orthonormal.

    >>> from torch import eye
    >>> overlap(eye(4)[:, :2], eye(4)[:, 1:3])
    0.5
    """
    return float((V.T @ W).square().sum() / V.shape[1])


def largest_difference(a: Float[Tensor, " k"], b: Float[Tensor, " k"]) -> float:
    """The largest ``|a_i / b_i - 1|``.

    >>> from torch import tensor
    >>> largest_difference(tensor([4.0, 3.0]), tensor([4.0, 2.0]))
    0.5
    """
    return float((a / b - 1).abs().max())


@dataclass(frozen=True)
class Tops:
    """The largest eigenpairs of a Hessian and of its Gauss-Newton matrix, compared.

    Attributes:
        hessian: of the Hessian.
        gauss_newton: of the Gauss-Newton matrix, as many.
        first: how many of them should be outliers.
        gap: see :func:`number_of_outliers`.
    """

    hessian: EigenPairs
    gauss_newton: EigenPairs
    first: int
    gap: float

    @property
    def matvecs(self) -> int:
        """Matrix-vector products that both took."""
        return self.hessian.matvecs + self.gauss_newton.matvecs

    @property
    def converged(self) -> bool:
        """Whether every pair has converged."""
        return bool(self.hessian.converged.all() and self.gauss_newton.converged.all())

    @property
    def space(self) -> Float[Tensor, "n k"]:
        """Eigenvectors of what should be the Hessian's outliers."""
        return self.hessian.vectors[:, : self.first]

    def numbers(self) -> dict[str, float]:
        """The numbers that compare them; NaN unless every pair has converged."""
        k, g = self.first, self.gauss_newton
        found = {
            "outliers": number_of_outliers(self.hessian.values, self.gap),
            "gauss_newton_outliers": number_of_outliers(g.values, self.gap),
            "overlap": overlap(self.space, g.vectors[:, :k]),
            "overlap_with_next": overlap(self.space, g.vectors[:, k : 2 * k]),
            "difference": largest_difference(self.hessian.values[:k], g.values[:k]),
        }
        return found if self.converged else dict.fromkeys(found, math.nan)
