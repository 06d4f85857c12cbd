"""The matrices that settings name."""

from __future__ import annotations

from typing import Literal, get_args

from lossgeom.curvature._parameter_matrix import ParameterMatrix
from lossgeom.curvature.gauss_newton import GaussNewton
from lossgeom.curvature.hessian import Hessian
from lossgeom.messages.wording import unknown

Matrix = Literal["hessian", "gauss_newton"]


def named_matrix(name: Matrix) -> type[ParameterMatrix]:
    """The matrix of a name, if there is one."""
    if name not in get_args(Matrix):
        raise ValueError(unknown("matrix", name, get_args(Matrix)))
    return Hessian if name == "hessian" else GaussNewton
