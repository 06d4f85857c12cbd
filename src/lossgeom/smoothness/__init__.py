"""The model as a function of its input."""

from lossgeom.smoothness.jacobian_norm import jacobian_norms
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

__all__ = [
    "Bracket",
    "LipschitzLower",
    "jacobian_norms",
    "lipschitz_global",
    "lipschitz_local",
    "lipschitz_lower",
    "local_variation",
    "local_variation_lower",
    "local_variation_upper",
]
