"""Optimisers that filter gradients linearly, and where they become unstable."""

from __future__ import annotations

import cmath
import math
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import chebyshev, polynomial

from lossgeom.messages.checks import check_number

REAL = 1e-7  # imaginary part of a root that rounding has split from a double one


@dataclass(frozen=True)
class LinearFilter:
    r"""What an optimiser makes of the gradients of all steps, as a ratio of polynomials.

    .. math:: \theta_{t+1} = (1 - \eta w) \theta_t - \eta P^{-1} Q(z) g_t, \qquad
        Q(z) = \frac{\sum_i n_i k^i}{\sum_i d_i k^i}, \quad k = z^{-1}

    where k takes what was one step before, with learning rate :math:`\eta`, decoupled weight decay
    w and a preconditioner P that is held fixed.

    Args:
        numerator: :math:`n_0, n_1, \dots`
        denominator: :math:`d_0, d_1, \dots`

    Source: Lee and Lee, 2026, proposition 2.1, in other words.

    >>> LinearFilter.heavy_ball(0.9)
    LinearFilter(numerator=(1.0,), denominator=(1.0, -0.9))
    """

    numerator: tuple[float, ...] = (1.0,)
    denominator: tuple[float, ...] = (1.0,)

    @classmethod
    def heavy_ball(cls, momentum: float, dampening: float = 0.0) -> LinearFilter:
        r"""SGD with momentum, and RMSprop's: :math:`(1 - d) / (1 - \beta k)`.

        The first gradient, which torch does not dampen, decides nothing about stability.
        """
        return cls((1.0 - dampening,), (1.0, -momentum)) if momentum else cls()

    @classmethod
    def nesterov(cls, momentum: float, dampening: float = 0.0) -> LinearFilter:
        r"""Nesterov momentum as torch writes it: :math:`1 + \beta (1 - d) / (1 - \beta k)`."""
        return cls.mixture(1.0, momentum * (1 - dampening), cls.heavy_ball(momentum))

    @classmethod
    def adam(cls, beta1: float) -> LinearFilter:
        r"""Adam, AdamW, AMSGrad: :math:`(1 - \beta_1) / (1 - \beta_1 k)`."""
        return cls.heavy_ball(beta1, beta1)

    @classmethod
    def nadam(cls, beta1: float, gradient: float, average: float) -> LinearFilter:
        r"""NAdam: :math:`a + c (1 - \beta_1) / (1 - \beta_1 k)`, with :math:`a + c = 1` late.

        Args:
            beta1: of the average.
            gradient: a, :math:`(1 - \mu_t) / (1 - \prod_{i \leq t} \mu_i)`.
            average: c, :math:`\mu_{t+1} / (1 - \prod_{i \leq t+1} \mu_i)`.

        Source: Dozat, Incorporating Nesterov momentum into Adam (2016); torch.
        """
        return cls.mixture(gradient, average, cls.adam(beta1))

    @classmethod
    def qhm(cls, beta: float, nu: float) -> LinearFilter:
        r"""Quasi-hyperbolic momentum: :math:`1 - \nu + \nu (1 - \beta) / (1 - \beta k)`.

        Source: Ma and Yarats, arXiv:1810.06801, section 3.
        """
        return cls.mixture(1 - nu, nu, cls.adam(beta))

    @classmethod
    def ademamix(cls, beta1: float, beta3: float, alpha: float) -> LinearFilter:
        r"""AdEMAMix: :math:`(1 - \beta_1)/(1 - \beta_1 k) + \alpha (1 - \beta_3)/(1 - \beta_3 k)`.

        Source: Pagliardini et al., arXiv:2409.03137, with alpha and beta3 reached.
        """
        fast, slow = cls.adam(beta1), cls.adam(beta3)
        once = polynomial.polymul(fast.numerator, slow.denominator)
        again = alpha * polynomial.polymul(slow.numerator, fast.denominator)
        bottom = polynomial.polymul(fast.denominator, slow.denominator)
        return cls(tuple(map(float, polynomial.polyadd(once, again))), tuple(map(float, bottom)))

    @classmethod
    def mixture(cls, constant: float, weight: float, other: LinearFilter) -> LinearFilter:
        """A multiple of the gradient and one of what another filter makes of it."""
        direct = np.multiply(constant, other.denominator)
        filtered = np.multiply(weight, other.numerator)
        top = map(float, polynomial.polyadd(direct, filtered))
        return cls(tuple(top), other.denominator)

    def response(self, z: complex) -> complex:
        """Q(z)."""
        top, bottom = self._at(z)
        return top / bottom

    def _at(self, z: complex) -> tuple[complex, complex]:
        """Numerator and denominator at z."""
        k = 1 / z
        return (
            sum(n * k**i for i, n in enumerate(self.numerator)),
            sum(d * k**i for i, d in enumerate(self.denominator)),
        )


def edge(linear_filter: LinearFilter, lr: float = 1.0, decoupled_decay: float = 0.0) -> float:
    r"""The least curvature at which steps stop being stable.

    A mode of curvature s, an eigenvalue of :math:`P^{-1} H`, is stable if all roots of

    .. math:: z - (1 - \eta w) + \eta s Q(z) = 0

    lie in the open unit disc. As s grows from 0, the first of them leaves it at
    :math:`z = e^{i \omega}` where :math:`(1 - \eta w - z) / Q(z)` is real and positive; the least
    such value over all :math:`\omega`, divided by :math:`\eta`, is the edge. Those :math:`\omega`
    are the roots of a polynomial in :math:`\cos \omega`, found exactly and not on a grid. Where Q
    is a sum of exponential averages with positive weights, as for all optimisers of torch, it is
    :math:`z = -1`, and the edge is :math:`(2 - \eta w) / (\eta\, Q(-1))`: the imaginary part of
    :math:`(z - 1 + \eta w) / Q(z)` has the sign of that of z on the rest of the circle.

    Args:
        linear_filter: what the optimiser makes of the gradients.
        lr: the learning rate; 1 gives the edge of the eigenvalues of :math:`\eta P^{-1} H`.
        decoupled_decay: w of AdamW. Coupled weight decay is part of H.

    Returns:
        The edge. It is 0 where no curvature is stable, as with a momentum of 1 or
        :math:`\eta w \geq 2`, and infinite where all are, as with a learning rate of 0.

    Raises:
        ValueError: for a negative learning rate or decay.

    Source: Lee and Lee, 2026, proposition 2.1; with decoupled decay derived here.

    >>> edge(LinearFilter(), lr=0.5), edge(LinearFilter.heavy_ball(0.5), lr=0.5)
    (4.0, 6.0)
    >>> round(edge(LinearFilter.ademamix(0.9, 0.999, 5.0), lr=0.1), 3)
    362.76
    """
    check_number("lr", lr, 0, at_low=True)
    check_number("decoupled_decay", decoupled_decay, 0, at_low=True)
    kept = 1 - lr * decoupled_decay
    if lr == 0 or not any(linear_filter.numerator):
        return math.inf
    if not _starts_stable(linear_filter, kept):
        return 0.0
    found = (_curvature(linear_filter, kept, z) for z in _candidates(linear_filter, kept))
    return min((s for s in found if s > 0), default=math.inf) / lr


def _starts_stable(linear_filter: LinearFilter, kept: float) -> bool:
    """Whether all roots are in the disc for a small curvature."""
    poles = np.roots(linear_filter.denominator)
    if (abs(poles) >= 1).any():
        return False
    descends = kept == 1 and linear_filter.response(1).real >= 0
    return abs(kept) < 1 or descends


def _candidates(linear_filter: LinearFilter, kept: float) -> list[complex]:
    """Points on the upper half of the unit circle where (kept - z) / Q(z) is real.

    On the circle it has the sign and phase of (kept - z) d(1/z) n(z), a sum of multiples of z^m,
    whose imaginary part is sin(omega) times a sum of Chebyshev polynomials of the second kind.
    """
    top, bottom = linear_filter.numerator, linear_filter.denominator
    powers = np.convolve(np.convolve(top, bottom[::-1]), [kept, -1.0])
    zero = len(bottom) - 1  # where the power 0 is
    odd = [
        (_entry(powers, zero + m) - _entry(powers, zero - m)) / m if m else 0.0
        for m in range(len(powers))
    ]
    cosines = chebyshev.chebroots(chebyshev.chebtrim(chebyshev.chebder(odd)))
    real = [c.real for c in np.atleast_1d(cosines) if abs(c.imag) < REAL and abs(c.real) < 1]
    return [complex(-1), complex(1), *(cmath.exp(1j * math.acos(c)) for c in real)]


def _entry(powers: np.ndarray, place: int) -> float:
    return float(powers[place]) if 0 <= place < len(powers) else 0.0


def _curvature(linear_filter: LinearFilter, kept: float, z: complex) -> float:
    """The s, in units of 1 / lr, that has a root at z, if it is real."""
    top, bottom = linear_filter._at(z)
    return ((kept - z) * bottom / top).real if top else math.nan
