"""Theorems: numbers in, a bound out, with all that it rests on."""

from lossgeom.bounds._numbers import Number
from lossgeom.bounds._training import Epoch
from lossgeom.bounds.bound import Assumption, Bound
from lossgeom.bounds.cell_bounds import cell_bounds, interval_cells
from lossgeom.bounds.cells import cell_generalisation, cell_robustness, unevenness
from lossgeom.bounds.comparison import Comparison, compare
from lossgeom.bounds.covering import Covered, MeasuredCovering, covering_radius
from lossgeom.bounds.delta_good import DeltaGood, Product, PushForward
from lossgeom.bounds.fit_of_cost import fit_of_cost
from lossgeom.bounds.generalisation import (
    difference,
    generalisation,
    local_difference,
    local_lipschitz,
    smooth_difference,
)
from lossgeom.bounds.generalisation_bounds import generalisation_bounds
from lossgeom.bounds.input_gradients import input_gradient_bounds, input_gradients
from lossgeom.bounds.intrinsic_dimension import IntrinsicDimension, intrinsic_dimension
from lossgeom.bounds.jacobian_from_separation import jacobian_from_separation
from lossgeom.bounds.kl_inverse import bernoulli_kl, kl_inverse
from lossgeom.bounds.latents import Cube, Gaussian, Sphere
from lossgeom.bounds.layer_sensitivity import (
    LayerSensitivity,
    layer_sensitivity,
    network_sensitivity,
    network_volume,
)
from lossgeom.bounds.lipschitz_on_support import lipschitz_on_support
from lossgeom.bounds.pac_bayes import PacBayes, pac_bayes
from lossgeom.bounds.posterior import Posterior
from lossgeom.bounds.row import Row
from lossgeom.bounds.stable_gradients import stable_gradients, stable_trace
from lossgeom.bounds.steepest_pair import SteepestPair, steepest_pair

__all__ = [
    "Assumption",
    "Bound",
    "Comparison",
    "Covered",
    "Cube",
    "DeltaGood",
    "Epoch",
    "Gaussian",
    "IntrinsicDimension",
    "LayerSensitivity",
    "MeasuredCovering",
    "Number",
    "PacBayes",
    "Posterior",
    "Product",
    "PushForward",
    "Row",
    "Sphere",
    "SteepestPair",
    "bernoulli_kl",
    "cell_bounds",
    "cell_generalisation",
    "cell_robustness",
    "compare",
    "covering_radius",
    "difference",
    "fit_of_cost",
    "generalisation",
    "generalisation_bounds",
    "input_gradient_bounds",
    "input_gradients",
    "interval_cells",
    "intrinsic_dimension",
    "jacobian_from_separation",
    "kl_inverse",
    "layer_sensitivity",
    "lipschitz_on_support",
    "local_difference",
    "local_lipschitz",
    "network_sensitivity",
    "network_volume",
    "pac_bayes",
    "smooth_difference",
    "stable_gradients",
    "stable_trace",
    "steepest_pair",
    "unevenness",
]
