"""Linear algebra on matrices known only through their products."""

from lossgeom.linalg._ritz import EigenPairs, Which
from lossgeom.linalg.arithmetic import (
    ONE_AT_A_TIME,
    plain_arithmetic,
    random_numbers,
    some_direction,
)
from lossgeom.linalg.best_kronecker import best_kronecker_product
from lossgeom.linalg.conjugate_gradients import Solution, conjugate_gradients
from lossgeom.linalg.density import SpectralDensity, spectral_density
from lossgeom.linalg.diagonal import Diagonal, diagonal
from lossgeom.linalg.effective_rank import effective_rank
from lossgeom.linalg.eigenspaces import (
    correspondence_maps,
    eigenspace_overlap,
    energy_along,
    random_overlap,
    rank_one_energy,
)
from lossgeom.linalg.followed import followed_pairs
from lossgeom.linalg.frobenius_norm import frobenius_norm
from lossgeom.linalg.kronecker_product import KroneckerEigenbasis, KroneckerProduct
from lossgeom.linalg.lanczos import top_eigenpairs
from lossgeom.linalg.memory import Memory, MemoryBudgetError
from lossgeom.linalg.operator import Dense, LinearOperator, MatrixFree, as_operator
from lossgeom.linalg.probes import random_signs
from lossgeom.linalg.spectral_norm import spectral_norm
from lossgeom.linalg.trace import trace

__all__ = [
    "ONE_AT_A_TIME",
    "Dense",
    "Diagonal",
    "EigenPairs",
    "KroneckerEigenbasis",
    "KroneckerProduct",
    "LinearOperator",
    "MatrixFree",
    "Memory",
    "MemoryBudgetError",
    "Solution",
    "SpectralDensity",
    "Which",
    "as_operator",
    "best_kronecker_product",
    "conjugate_gradients",
    "correspondence_maps",
    "diagonal",
    "effective_rank",
    "eigenspace_overlap",
    "energy_along",
    "followed_pairs",
    "frobenius_norm",
    "plain_arithmetic",
    "random_numbers",
    "random_overlap",
    "random_signs",
    "rank_one_energy",
    "some_direction",
    "spectral_density",
    "spectral_norm",
    "top_eigenpairs",
    "trace",
]
