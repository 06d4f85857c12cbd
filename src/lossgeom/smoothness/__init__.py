"""The model as a function of its input."""

from lossgeom.smoothness.certified_radius import certified_radius
from lossgeom.smoothness.jacobian_norm import jacobian_norms
from lossgeom.smoothness.largest_jacobian_norm import LargestJacobianNorm, largest_jacobian_norm
from lossgeom.smoothness.lipschitz import (
    LipschitzLower,
    lipschitz_global,
    lipschitz_local,
    lipschitz_lower,
)
from lossgeom.smoothness.local_variation import (
    Bracket,
    local_variation,
    local_variation_lower,
    local_variation_upper,
)
from lossgeom.smoothness.logit_change import LogitChange, logit_change
from lossgeom.smoothness.multiplicative_inequality import (
    MultiplicativeInequality,
    multiplicative_inequality,
)
from lossgeom.smoothness.norms import JacobianNorms
from lossgeom.smoothness.parameter_jacobian_norm import parameter_jacobian_norms
from lossgeom.smoothness.robustness import Robustness, robustness
from lossgeom.smoothness.sobolev import SobolevSeminorms, sobolev_seminorms

__all__ = [
    "Bracket",
    "JacobianNorms",
    "LargestJacobianNorm",
    "LipschitzLower",
    "LogitChange",
    "MultiplicativeInequality",
    "Robustness",
    "SobolevSeminorms",
    "certified_radius",
    "jacobian_norms",
    "largest_jacobian_norm",
    "lipschitz_global",
    "lipschitz_local",
    "lipschitz_lower",
    "local_variation",
    "local_variation_lower",
    "local_variation_upper",
    "logit_change",
    "multiplicative_inequality",
    "parameter_jacobian_norms",
    "robustness",
    "sobolev_seminorms",
]
