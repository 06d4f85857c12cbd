"""Curvature matrices of a loss, one in each file."""

from lossgeom.curvature.gauss_newton import GaussNewton
from lossgeom.curvature.hessian import Hessian
from lossgeom.curvature.sharpness import sharpness

MATRICES = (Hessian, GaussNewton)

__all__ = ["MATRICES", "GaussNewton", "Hessian", "sharpness"]
