"""Curvature matrices of a loss, one in each file."""

from lossgeom.curvature._layers import Layer, left_out
from lossgeom.curvature.best_kronecker import BestKronecker, best_kronecker
from lossgeom.curvature.block_sharpness import BlockSharpness, block_sharpness
from lossgeom.curvature.blocks import BlockDiagonal, block, off_block_mass, parameter_blocks
from lossgeom.curvature.conjugate_gauss_newton import ConjugateGaussNewton
from lossgeom.curvature.decoupled import Decoupled
from lossgeom.curvature.empirical_fisher import EmpiricalFisher
from lossgeom.curvature.gauss_newton import GaussNewton
from lossgeom.curvature.gradient_covariance import GradientCovariance
from lossgeom.curvature.hessian import Hessian
from lossgeom.curvature.kronecker import KroneckerFactors, kronecker_factors
from lossgeom.curvature.kronecker_errors import KroneckerErrors, LayerErrors, kronecker_errors
from lossgeom.curvature.layer_eigenpairs import LayerBlocks, layer_eigenpairs
from lossgeom.curvature.layer_rows import LayerRows, layer_rows
from lossgeom.curvature.layer_structure import (
    LayerStructure,
    Outliers,
    layer_structure,
    outliers,
    structure_of,
)
from lossgeom.curvature.layer_summands import (
    LayerSummand,
    Mediators,
    each_layer_summand,
    layer_summands,
)
from lossgeom.curvature.monte_carlo_fisher import MonteCarloFisher
from lossgeom.curvature.named_matrix import Matrix, named_matrix
from lossgeom.curvature.ntk import NTK
from lossgeom.curvature.objective_hessian import ObjectiveHessian
from lossgeom.curvature.optimizers import unwrapped_optimizer
from lossgeom.curvature.output_root import OutputRoot
from lossgeom.curvature.parameter_jacobian import ParameterJacobian
from lossgeom.curvature.preconditioned_hessian import PreconditionedHessian, preconditioner
from lossgeom.curvature.residual import Residual
from lossgeom.curvature.sharpness import sharpness

MATRICES = (
    Hessian,
    GaussNewton,
    Residual,
    EmpiricalFisher,
    MonteCarloFisher,
    GradientCovariance,
    ObjectiveHessian,
    PreconditionedHessian,
    BlockDiagonal,
    ParameterJacobian,
    OutputRoot,
    NTK,
    ConjugateGaussNewton,
    Decoupled,
)
