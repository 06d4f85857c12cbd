"""What a Krylov basis leaves of a symmetric operator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from lossgeom.linalg._krylov import Products
from lossgeom.linalg._ritz import Ritz, Which
from lossgeom.linalg.arithmetic import lengths
from lossgeom.linalg.operator import LinearOperator, MatrixFree


@dataclass(frozen=True)
class Beside:
    r"""The Schur complement of a basis, whose eigenvalues say what the basis has missed.

    With :math:`A V^\top = V^\top T + F^\top C` and a place that is no eigenvalue of T, A has as
    many eigenvalues beyond the place as T and, on all that is orthogonal to V,

    .. math:: A - F^\top C (T - \text{place})^{-1} C^\top F

    have together (Sylvester, Haynsworth). What V knows, converged or not, is out of the way.
    """

    A: LinearOperator
    locked: Float[Tensor, "l n"]
    rows: Float[Tensor, "f n"]
    part: Float[Tensor, "l f"]

    @classmethod
    def of(cls, ritz: Ritz, k: int, place: float, which: Which) -> Beside:
        """Take a basis out; of two places, where magnitudes count, only its best k vectors."""
        basis, A = ritz.basis, ritz.basis.products.A
        if which == "magnitude":
            V = ritz.vectors(k)
            return cls(A, V, V[:0], V.new_zeros(k, 0))
        basis.wait_no_more()
        v, signed = len(ritz.values), place if which == "largest" else -place
        F, coupling = basis.rows[v:], basis.coupling @ ritz.weights
        solved = coupling / (ritz.values - signed)
        G = -(solved @ coupling.T).to(F)

        def product(X: Tensor) -> Tensor:
            known = F.T @ (G @ (F @ X.to(F.device)))
            return A.matmat(X) + known.to(X.device)

        M = MatrixFree(A.shape, A.dtype, A.device, product, lambda: M)
        return cls(M, basis.rows[:v], F, -(ritz.weights @ solved.T).to(F))

    @contextmanager
    def multiplied(self, products: Products) -> Iterator[None]:
        """Count its products as those of A."""
        A, products.A = products.A, self.A
        try:
            yield
        finally:
            products.A = A

    def completed(self, rival: Float[Tensor, "1 n"]) -> Float[Tensor, "1 n"]:
        """Add to a vector what V has of the pair that it stands for."""
        whole = rival + (self.part @ (self.rows @ rival.T)).T @ self.locked
        return whole / lengths(whole)[:, None].to(whole)
