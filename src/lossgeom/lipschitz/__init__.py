"""How fast a model and its Jacobian can change with the input: estimates and certified bounds."""

from lossgeom.lipschitz.bracket import Bracket
from lossgeom.lipschitz.lipschitz import (
    LipschitzLower,
    lipschitz_global,
    lipschitz_local,
    lipschitz_lower,
)
from lossgeom.lipschitz.local_variation import (
    jacobian_lipschitz,
    local_variation,
    local_variation_lower,
    local_variation_upper,
)
