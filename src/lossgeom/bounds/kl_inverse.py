"""The relative entropy of two coins, and its inverse."""

from __future__ import annotations

import math


def bernoulli_kl(q: float, p: float) -> float:
    r"""The relative entropy of coins that fall heads with probabilities q and p, in nats.

    .. math:: \mathrm{kl}(q \| p) = q \ln(q / p) + (1 - q) \ln((1 - q) / (1 - p))

    with 0 ln 0 = 0; infinite where p is 0 or 1 and q is not p.

    >>> round(bernoulli_kl(0.5, 0.25), 6), bernoulli_kl(0.0, 1.0)
    (0.143841, inf)
    """
    if q == p:
        return 0.0
    if p in (0.0, 1.0):
        return math.inf
    return q * _log_ratio(q, p, q - p) + (1 - q) * _log_ratio(1 - q, 1 - p, p - q)


def _log_ratio(a: float, b: float, difference: float) -> float:
    """ln(a / b) with a - b, which says more where the two are close; 0 for a = 0."""
    if a == 0:
        return 0.0
    near = abs(difference) < a / 2
    return -math.log1p(-difference / a) if near else math.log(a) - math.log(b)


def kl_inverse(q: float, c: float) -> float:
    r"""The largest probability whose relative entropy from q is at most c.

    .. math:: \mathrm{kl}^{-1}(q, c) = \sup\{x \ge q : \mathrm{kl}(q \| x) \le c\}

    by bisection, to the last bits. It is exact at its ends: :math:`1 - e^{-c}` for q = 0, 1 for
    q = 1 or infinite c, and q for c = 0; NaN for a NaN.

    Raises:
        ValueError: for q outside of [0, 1], or c < 0.

    Source: Langford, Tutorial on Practical Prediction Theory for Classification, JMLR 6 (2005);
    Dziugaite and Roy, arXiv:1703.11008, section 2.

    >>> round(kl_inverse(0.05, 0.1), 6), kl_inverse(0.3, 0.0), kl_inverse(0.3, float("inf"))
    (0.206401, 0.3, 1.0)
    """
    if math.isnan(q) or math.isnan(c):
        return math.nan
    if not 0 <= q <= 1:
        raise ValueError(f"expected a probability q from 0 to 1, got {q}")
    if c < 0:
        raise ValueError(f"expected c >= 0, got {c}")
    if c == 0:
        return float(q)
    if q == 0:
        return -math.expm1(-c)
    low, high = q, 1.0
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if bernoulli_kl(q, middle) <= c else (low, middle)
    return high
