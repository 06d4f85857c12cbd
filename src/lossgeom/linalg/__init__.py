"""Linear algebra on matrices known only through their products."""

from lossgeom.linalg._rayleigh_ritz import Which
from lossgeom.linalg.lanczos import EigenPairs, top_eigenpairs
from lossgeom.linalg.operator import Dense, LinearOperator, as_operator

__all__ = ["Dense", "EigenPairs", "LinearOperator", "Which", "as_operator", "top_eigenpairs"]
