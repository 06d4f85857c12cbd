"""Second-order regression models: residuals that are quadratic in the parameters.

Letters as in the paper: R runs, D outputs, P parameters, S records. Unless a learning rate
is given, units are rescaled: it is 1, and the edge of stability is at 2.
"""

from lossgeom.quadratic.acceleration import (
    expected_acceleration,
    initial_motion,
    predicted_acceleration,
)
from lossgeom.quadratic.descent import Descent
from lossgeom.quadratic.edge import Basins, basins, edge_limit, edge_limit_from
from lossgeom.quadratic.flow import FlowError, gradient_flow
from lossgeom.quadratic.general_edge import edge_limit_at
from lossgeom.quadratic.hierarchy import (
    eigencoordinates,
    flow_limit,
    invariant,
    moment_step,
    moments,
    next_moments,
)
from lossgeom.quadratic.implicit_model import ImplicitModel
from lossgeom.quadratic.model import Ensemble, Model, QuadraticModel
from lossgeom.quadratic.network_model import NetworkModel, NetworkPoint, TrueNetwork, network
from lossgeom.quadratic.parameter_descent import descend_parameters
from lossgeom.quadratic.phases import PhaseDiagram, phase_diagram
from lossgeom.quadratic.planar import Planar
from lossgeom.quadratic.point import Expansion, Point, squared_error
from lossgeom.quadratic.random_models import RandomModels, random_models
from lossgeom.quadratic.recursion import descend
from lossgeom.quadratic.second_derivative import Dense, Implicit, LowRank, SecondDerivative
from lossgeom.quadratic.taylor import TaylorModel, taylor
from lossgeom.quadratic.taylor_error import (
    TaylorComparison,
    compare_with_taylor,
    distance,
    taylor_error,
)
from lossgeom.quadratic.top_mode import TopMode, top_mode, top_mode_residual
from lossgeom.quadratic.trajectory import Trajectory, largest_ntk_eigenvalues, residuals
from lossgeom.quadratic.trust_radius import TrustRadius, trust_radius

__all__ = [
    "Basins",
    "Dense",
    "Descent",
    "Ensemble",
    "Expansion",
    "FlowError",
    "Implicit",
    "ImplicitModel",
    "LowRank",
    "Model",
    "NetworkModel",
    "NetworkPoint",
    "PhaseDiagram",
    "Planar",
    "Point",
    "QuadraticModel",
    "RandomModels",
    "SecondDerivative",
    "TaylorComparison",
    "TaylorModel",
    "TopMode",
    "Trajectory",
    "TrueNetwork",
    "TrustRadius",
    "basins",
    "compare_with_taylor",
    "descend",
    "descend_parameters",
    "distance",
    "edge_limit",
    "edge_limit_at",
    "edge_limit_from",
    "eigencoordinates",
    "expected_acceleration",
    "flow_limit",
    "gradient_flow",
    "initial_motion",
    "invariant",
    "largest_ntk_eigenvalues",
    "moment_step",
    "moments",
    "network",
    "next_moments",
    "phase_diagram",
    "predicted_acceleration",
    "random_models",
    "residuals",
    "squared_error",
    "taylor",
    "taylor_error",
    "top_mode",
    "top_mode_residual",
    "trust_radius",
]
