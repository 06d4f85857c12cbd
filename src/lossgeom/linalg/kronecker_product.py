"""Kronecker products of symmetric matrices, known by their factors alone."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.linalg._ritz import EigenPairs
from lossgeom.linalg.arithmetic import lengths
from lossgeom.linalg.operator import (
    ASYMMETRY,
    LinearOperator,
    check_symmetric,
    square_operator,
)
from lossgeom.messages.reprs import short

ENOUGH = 1e-3  # damping relative to the largest eigenvalue, with which a matrix can be inverted


class _OnMatrices(LinearOperator):
    """A symmetric operator on m x n matrices X, as vectors in row-major order."""

    left: Float[Tensor, "m m"]
    right: Float[Tensor, "n n"]

    __repr__ = short

    @property
    def shape(self) -> tuple[int, int]:
        size = len(self.left) * len(self.right)
        return size, size

    @property
    def dtype(self) -> torch.dtype:
        return self.left.dtype

    @property
    def device(self) -> torch.device:
        return self.left.device

    @property
    def T(self) -> LinearOperator:  # noqa: N802
        return self


@dataclass(frozen=True, eq=False, repr=False)
class KroneckerProduct(_OnMatrices):
    r"""The Kronecker product of two symmetric matrices, which may be indefinite.

    .. math:: (L \otimes R)\, \mathrm{vec}(X) = \mathrm{vec}(L X R)

    for m x n matrices X, whose vec is row-major: the entry of output i and input j is at i n + j.

    Cost of a product with a vector: m n (m + n) multiplications; memory m^2 + n^2 numbers.

    Attributes:
        left: L, m x m.
        right: R, n x n, of the same type.

    Raises:
        TypeError: for factors of another type than float32 or float64, or of two types.
        ValueError: for a factor that is not square or not symmetric.

    Source: Van Loan, The ubiquitous Kronecker product (2000).

    >>> K = KroneckerProduct(torch.diag(torch.tensor([1.0, 2.0])), torch.ones(1, 1))
    >>> (K @ torch.tensor([1.0, 1.0])).tolist(), K.trace(), K.top_eigenpairs(1).values.tolist()
    ([1.0, 2.0], 3.0, [2.0])
    """

    left: Float[Tensor, "m m"]
    right: Float[Tensor, "n n"]

    def __post_init__(self) -> None:
        for factor in (self.left, self.right):
            square_operator(factor)
            check_symmetric_matrix(factor)
        if self.left.dtype != self.right.dtype:
            raise TypeError(
                f"expected factors of one type, got {self.left.dtype} and {self.right.dtype}"
            )

    def matmat(self, V: Float[Tensor, "n k"]) -> Float[Tensor, "m k"]:
        return _sandwiched(self.left, V, self.right)

    def dense(self) -> Float[Tensor, "m n"]:
        return torch.kron(self.left, self.right)

    def trace(self) -> float:
        """The trace, exactly, by the product of those of the factors."""
        return float(self.left.double().trace() * self.right.double().trace())

    def frobenius_norm(self) -> float:
        """The Frobenius norm, exactly, by the product of those of the factors."""
        return float(lengths(self.left.flatten(), 0) * lengths(self.right.flatten(), 0))

    def eigenbasis(self) -> KroneckerEigenbasis:
        """The same matrix in its eigenbasis; both factors are decomposed in float64."""
        sigma, U, mu, V = self._decomposed()
        dtype = self.dtype
        return KroneckerEigenbasis(U.to(dtype), V.to(dtype), torch.outer(sigma, mu).to(dtype))

    def top_eigenpairs(self, k: int = 1) -> EigenPairs:
        r"""The k largest signed eigenvalues, and their eigenvectors :math:`u_i \otimes v_j`.

        Each row of the products :math:`\sigma_i \mu_j` is gone through from its largest down, and
        the rows are merged. Nothing of m n numbers is made but the k vectors.

        Cost: two decompositions in float64, and a heap of m entries for k steps.

        Raises:
            ValueError: if k is not in 1..mn.
        """
        _check_count(k, self.shape[0])
        sigma, U, mu, V = self._decomposed()
        mus = list(enumerate(mu.tolist()))

        def row(i: int, s: float) -> Iterator[tuple[float, int, int]]:
            return ((-s * value, i, j) for j, value in (reversed(mus) if s >= 0 else mus))

        largest = islice(heapq.merge(*map(row, range(len(sigma)), sigma.tolist())), k)
        i, j = torch.tensor([places for _, *places in largest], device=self.device).T
        return _pairs(self, sigma[i] * mu[j], U[:, i], V[:, j])

    def _decomposed(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Ascending eigenvalues and eigenvectors of both factors, in float64."""
        sigma, U = torch.linalg.eigh(self.left.double())
        mu, V = torch.linalg.eigh(self.right.double())
        return sigma, U, mu, V


@dataclass(frozen=True, eq=False, repr=False)
class KroneckerEigenbasis(_OnMatrices):
    r"""A symmetric matrix whose eigenvectors are those of a Kronecker product.

    .. math:: (U \otimes V)\, \mathrm{diag}(\lambda_{ij})\, (U \otimes V)^\top

    The eigenvalues need not be products: EKFAC keeps the basis and corrects them. A matrix that is
    decomposed in float64 keeps its dtype here.

    Cost of a product with a vector: 2 m n (m + n) multiplications.

    Attributes:
        left: U, m x m and orthogonal.
        right: V, n x n and orthogonal.
        values: the m x n eigenvalues.

    Source: George et al., Fast approximate natural gradient descent in a Kronecker-factored
    eigenbasis, arXiv:1806.03884.

    >>> K = KroneckerEigenbasis(torch.eye(1), torch.eye(2), torch.tensor([[1.0, 3.0]]))
    >>> K.inverse(damping=1.0).dense().tolist(), round(K.logdet(), 4)
    ([[0.5, 0.0], [0.0, 0.25]], 1.0986)
    """

    left: Float[Tensor, "m m"]
    right: Float[Tensor, "n n"]
    values: Float[Tensor, "m n"]

    def matmat(self, V: Float[Tensor, "n k"]) -> Float[Tensor, "m k"]:
        return self.unrotate(self.values.reshape(-1, 1) * self.rotate(V))

    def rotate(self, V: Float[Tensor, "mn ..."]) -> Float[Tensor, "mn ..."]:
        r"""The coordinates :math:`(U \otimes V)^\top v` of a vector or a block in the basis."""
        return _sandwiched(self.left.T, V, self.right.T)

    def unrotate(self, V: Float[Tensor, "mn ..."]) -> Float[Tensor, "mn ..."]:
        r"""The vector or block with some coordinates in the basis; undoes ``rotate``."""
        return _sandwiched(self.left, V, self.right)

    def trace(self) -> float:
        """The trace, exactly."""
        return float(self.values.double().sum())

    def frobenius_norm(self) -> float:
        """The Frobenius norm, exactly."""
        return float(lengths(self.values.flatten(), 0))

    def eigenbasis(self) -> KroneckerEigenbasis:
        """The matrix itself."""
        return self

    def inverse(self, damping: float = 0.0) -> KroneckerEigenbasis:
        r"""The inverse of A + damping I, in the same basis.

        Raises:
            ValueError: where an eigenvalue of A + damping I is zero up to rounding.
        """
        damped = self.values.double() + damping
        if (damped.abs() <= self._rounding).any():
            enough = damping + ENOUGH * (self.values.abs().max().item() or 1.0)
            raise ValueError(
                "expected a matrix that can be inverted, got one with an eigenvalue of "
                f"{damped.abs().min().item():.2g}; expected a larger damping than {damping}, such "
                f"as {enough:.2g}"
            )
        return KroneckerEigenbasis(self.left, self.right, (1 / damped).to(self.dtype))

    def sqrt(self) -> KroneckerEigenbasis:
        """The symmetric square root, in the same basis; what rounding left below 0 is 0.

        Raises:
            ValueError: for a negative eigenvalue.
        """
        values = self._semidefinite(0.0, "a positive semi-definite matrix")
        return KroneckerEigenbasis(self.left, self.right, values.clamp(min=0).sqrt().to(self.dtype))

    def logdet(self, damping: float = 0.0) -> float:
        """The logarithm of the determinant of A + damping I; -inf where that is zero.

        Raises:
            ValueError: for a negative eigenvalue of A + damping I.
        """
        wanted = f"a damping that makes the matrix positive, not {damping}"
        damped = self._semidefinite(damping, wanted)
        return float(torch.where(damped <= self._rounding, 0.0, damped).log().sum())

    def top_eigenpairs(self, k: int = 1) -> EigenPairs:
        """The k largest signed eigenvalues and their eigenvectors.

        Raises:
            ValueError: if k is not in 1..mn.
        """
        _check_count(k, self.shape[0])
        values, places = self.values.double().flatten().topk(k)
        i, j = places // len(self.right), places % len(self.right)
        return _pairs(self, values, self.left[:, i], self.right[:, j])

    def _semidefinite(self, damping: float, wanted: str) -> Float[Tensor, "m n"]:
        """The eigenvalues of A + damping I, if none is further below zero than by rounding."""
        damped = self.values.double() + damping
        if damped.min() < -self._rounding * max(1.0, sum(damped.shape) / 10):
            raise ValueError(f"expected {wanted}, got an eigenvalue of {damped.min().item():.6g}")
        return damped

    @property
    def _rounding(self) -> float:
        """What counts as rounding of an eigenvalue: factors were summed in the dtype."""
        return 10 * torch.finfo(self.dtype).eps * self.values.abs().max().item()


def check_symmetric_matrix(A: Float[Tensor, "n n"]) -> None:
    """Raise where entries across the diagonal differ by more than rounding."""
    check_symmetric(A, A.mT, ASYMMETRY * A.abs().max())


def _sandwiched(
    left: Float[Tensor, "m m"], V: Float[Tensor, "mn ..."], right: Float[Tensor, "n n"]
) -> Float[Tensor, "mn ..."]:
    """The vec of L X R^T of each X."""
    X = torch.unflatten(V.movedim(0, -1), -1, (len(left), len(right)))
    product: Tensor = left @ X @ right.T
    return product.flatten(-2).movedim(-1, 0)


def _pairs(
    A: LinearOperator, values: Tensor, left: Float[Tensor, "m k"], right: Float[Tensor, "n k"]
) -> EigenPairs:
    """Eigenpairs with eigenvectors u (x) v and the residuals that rounding leaves."""
    vectors = (left[:, None] * right).flatten(0, 1).to(A.dtype)
    residuals = lengths((A.matmat(vectors) - vectors * values.to(A.dtype)).T)
    finite = residuals.isfinite()
    return EigenPairs(values.to(A.dtype), vectors, residuals, finite, len(values), True)


def _check_count(k: int, n: int) -> None:
    """Raise unless an operator of size n has k eigenpairs."""
    if not 1 <= k <= n:
        raise ValueError(f"expected 1 <= k <= {n}, the size of the operator; got k={k}")
