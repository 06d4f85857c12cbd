"""What is known of Lanczos vectors without a look at them."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

NEW = 100  # units of rounding by which a number has to differ from what cancels
SEEN = 3.0  # times what products were seen to round by
UNITS = 2.0  # of rounding of the norm of A, by which they round at least


@dataclass(frozen=True)
class Polynomials:
    """The polynomials in A that the rows of a basis are of the first of them.

    Attributes:
        eps: the unit of rounding.
        steps: what was done to the rows, in order: A times a row, by its place, is this combination
            of them and a new one, or the rows from a place on are replaced by combinations of them.
    """

    eps: float
    steps: list[tuple[int, Tensor]] = field(default_factory=list)

    def sizes_at(
        self, places: Float[Tensor, " p"], weights: Float[Tensor, " v"]
    ) -> Float[Tensor, " p"]:
        """Logarithms of a combination with other numbers for A; what rounding leaves is zero."""
        values, logs = torch.ones(len(places), 1).double(), torch.zeros(len(places)).double()
        for first, step in self.steps:
            if step.ndim == 1:
                new = (places * values[:, first] - values @ step[:-1]) / step[-1]
                values = torch.cat([values, new[:, None]], 1)
            else:
                values = torch.cat([values[:, :first], values[:, first:] @ step], 1)
            largest = values.abs().amax(1)
            values, logs = values / largest[:, None], logs + largest.log()
        values = values[:, : len(weights)]
        found = (values @ weights).abs() - NEW * self.eps * (values.abs() @ weights.abs())
        return logs + found.clamp(min=0).log()


@dataclass
class Orthogonality:
    r"""Estimates of the inner products of the last two Lanczos vectors with those before.

    From :math:`A V^\top = V^\top T + F^\top C` and symmetry, the inner products w of a vector with
    those before follow, but for rounding, from those of the last two,

    .. math:: \beta_{j+1} w_{j+1} = T w_j - \alpha_j w_j - \beta_j w_{j-1} \pm \text{rounding},

    and grow as Ritz vectors converge. How much products round along the vectors is seen where
    :math:`\beta_j` is known twice, as a length and as an inner product. While no inner product is
    above the root of the unit of rounding, T is, to rounding, that of orthonormal vectors.

    Attributes:
        allowed: the largest that they may be; with 0 none.
        rounding: of products along the vectors, as far as it has been seen.
        estimates: of the vector before the last, and of the last; none where these were made
            orthogonal to all before.

    Source: Simon, The Lanczos algorithm with partial reorthogonalization (1984).
    """

    allowed: float
    rounding: float = 0.0
    estimates: tuple[Tensor, Tensor] | None = None

    def kept(
        self, T: Float[Tensor, "w v"], onto: Float[Tensor, " 2"], left: float, unit: float
    ) -> bool:
        """Go on by a vector, and tell whether it may be what is left of the image of the last.

        Args:
            T: the projection, and the coupling of the last vector below it; w = v + 1.
            onto: inner products of the image with the vector before the last, and with the last.
            left: the length of the image without these two.
            unit: of rounding, times the norm of A.
        """
        one, v = T.new_ones(1), T.shape[1]
        before, last = self.estimates or (T.new_zeros(v - 1), T.new_zeros(v))
        beta, alpha = T[-1, -1], onto[1]
        self.rounding = max(self.rounding, UNITS * unit, SEEN * abs(float(onto[0] - beta)))
        new = T.T @ torch.cat([last, one]) - alpha * last - beta * torch.cat([before, one])
        new = (new + torch.where(new < 0, -self.rounding, self.rounding)) / left
        self.estimates = last, torch.cat([new[:-1], T.new_zeros(2)])
        return bool((new[:-1].abs() <= self.allowed).all())
