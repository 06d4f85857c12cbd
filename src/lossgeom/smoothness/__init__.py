"""The model as a function of its input."""

from lossgeom.smoothness.jacobian_norm import jacobian_norms
from lossgeom.smoothness.multiplicative_inequality import (
    MultiplicativeInequality,
    multiplicative_inequality,
)
from lossgeom.smoothness.sobolev import SobolevSeminorms, sobolev_seminorms

__all__ = [
    "MultiplicativeInequality",
    "SobolevSeminorms",
    "jacobian_norms",
    "multiplicative_inequality",
    "sobolev_seminorms",
]
