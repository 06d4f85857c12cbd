"""The model as a function of its input."""

from lossgeom.smoothness.jacobian_norm import jacobian_norms
from lossgeom.smoothness.largest_jacobian_norm import LargestJacobianNorm, largest_jacobian_norm
from lossgeom.smoothness.layer_jacobians import layer_singular_values, vector_layers
from lossgeom.smoothness.multiplicative_inequality import (
    MultiplicativeInequality,
    multiplicative_inequality,
)
from lossgeom.smoothness.norms import JacobianNorms
from lossgeom.smoothness.parameter_jacobian_norm import parameter_jacobian_norms
from lossgeom.smoothness.sobolev import SobolevSeminorms, sobolev_seminorms
