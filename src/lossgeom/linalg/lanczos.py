"""Extreme eigenpairs of a symmetric operator by Lanczos iteration."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lossgeom.estimate import Estimate
from lossgeom.linalg._arithmetic import plain_arithmetic
from lossgeom.linalg._rayleigh_ritz import WHICH, Basis, Ritz, Spent, Which, preference
from lossgeom.linalg.operator import LinearOperator, as_operator

RIVAL_TOL = 0.1  # a rival clearly out of reach need not be known any better
RIVAL_STEPS = 4  # to take before one may be ruled out
DTYPES = (torch.float32, torch.float64)


@dataclass(frozen=True)
class EigenPairs:
    """Eigenvalues and eigenvectors with their true residuals.

    Attributes:
        values: eigenvalues, the most wanted first.
        vectors: orthonormal eigenvectors as columns.
        residuals: ``||A v - lambda v||`` of each pair, from products that were really taken.
        converged: which pairs meet the tolerance.
        matvecs: matrix-vector products spent.
    """

    values: Float[Tensor, " k"]
    vectors: Float[Tensor, "n k"]
    residuals: Float[Tensor, " k"]
    converged: Bool[Tensor, " k"]
    matvecs: int

    @property
    def top(self) -> Estimate:
        """The most wanted eigenvalue."""
        return Estimate(
            self.values[0].item(),
            residual=self.residuals[0].item(),
            converged=bool(self.converged[0]),
            matvecs=self.matvecs,
        )


def top_eigenpairs(
    A: LinearOperator | Tensor | Any,
    k: int = 1,
    *,
    which: Which = "largest",
    tol: float = 1e-3,
    max_matvecs: int | None = None,
    max_basis: int | None = None,
    start: Tensor | None = None,
    verify: bool | None = None,
    seed: int = 0,
) -> EigenPairs:
    r"""The k extreme eigenpairs of a symmetric matrix A.

    Rayleigh-Ritz on a basis that grows by the residual of the first wanted pair that has not
    converged. From a single start vector that is Lanczos iteration with full
    reorthogonalisation, because all residuals are then parallel to the next Lanczos vector; the
    same rule also goes on after a restart and from any start block. The projected matrix is held
    and diagonalised in float64.

    A Krylov space holds one vector of each eigenspace, so copies of a multiple eigenvalue can be
    missed, and a good start can hide a better pair. The result is therefore *verified*: a second
    iteration, from a random vector orthogonal to the pairs found, looks for a rival until the best
    that it sees has settled below them; a rival joins the start block and the search goes on. Like
    every Krylov method this finds what a random vector sees of, and can miss a pair in a large
    cluster; it proves nothing.

    Cost: one product per basis vector, and about 8 n m flops per vector for a basis of m; memory
    2 n m numbers. Verification typically adds 5 to 10 products.

    Args:
        A: symmetric n x n matrix, see :func:`lossgeom.linalg.as_operator`.
        k: how many pairs.
        which: ``"largest"`` or ``"smallest"`` signed eigenvalues, or the largest ``"magnitude"``.
        tol: between 0 and 1. A pair has converged when ``||A v - lambda v||`` is at most tol times
            ``|lambda|`` and the spread of the spectrum, or is rounding error of ``||A||``.
        max_matvecs: products to spend at most, though never fewer than k; default
            ``max(100, 20 k)``. What has not converged by then says so.
        max_basis: basis vectors to hold at most (60), though never fewer than 2 k + 2; beyond it
            the method restarts from the best of them.
        start: (n,) or (n, j) vectors to start from, such as the eigenvectors of a nearby matrix.
        verify: whether to look for pairs that were missed; by default when ``k > 1`` or ``start``
            is given, that is, whenever it can matter.
        seed: of the random start; drawn on the CPU from a generator of its own.

    Returns:
        The pairs, most wanted first. Where products are not finite, values are NaN and nothing has
        converged.

    Raises:
        TypeError: if A is no matrix, or not in float32 or float64.
        ValueError: if A is not square or not symmetric, k is not in 1..n, tol is not in (0, 1), a
            limit is not positive, or start does not fit or is not finite.

    Source: Parlett, The Symmetric Eigenvalue Problem (1998), chapters 11-13; Wu and Simon, Thick-
    restart Lanczos (2000).

    >>> pairs = top_eigenpairs(torch.diag(torch.tensor([3.0, -5.0, 1.0, 3.0])), k=2)
    >>> [round(value, 5) for value in pairs.values.tolist()], pairs.converged.all().item()
    ([3.0, 3.0], True)
    """
    A = as_operator(A)
    _check(A, k, which, tol, start)
    for name, limit in (("max_matvecs", max_matvecs), ("max_basis", max_basis)):
        if limit is not None and limit < 1:
            raise ValueError(f"expected {name} >= 1, got {limit}")
    with plain_arithmetic(A.device), torch.no_grad():
        search = _Search(
            A,
            which=which,
            tol=tol,
            spent=Spent(max(100, 20 * k) if max_matvecs is None else max(max_matvecs, k)),
            capacity=min(A.shape[1], max(60 if max_basis is None else max_basis, 2 * k + 2)),
            generator=torch.Generator().manual_seed(seed),
        )
        verify = (k > 1 or start is not None) if verify is None else verify
        return search.pairs(k, _columns(A, start), verify)


def _nonfinite(A: LinearOperator, k: int, matvecs: int) -> EigenPairs:
    nan = torch.full((k,), math.nan, dtype=A.dtype)
    vectors = torch.full((A.shape[0], k), math.nan, dtype=A.dtype, device=A.device)
    return EigenPairs(nan, vectors, nan, torch.zeros(k, dtype=torch.bool), matvecs)


def _check(A: LinearOperator, k: int, which: Which, tol: float, start: Tensor | None) -> None:
    n = A.shape[0]
    if A.shape != (n, n):
        raise ValueError(f"expected a square symmetric operator, got shape {A.shape}")
    if not 1 <= k <= n:
        raise ValueError(f"expected 1 <= k <= {n}, the size of the operator; got k={k}")
    if which not in WHICH:
        raise ValueError(f"expected which to be one of {WHICH}, got {which!r}")
    if A.dtype not in DTYPES:
        raise TypeError(f"expected an operator in float32 or float64, got {A.dtype}")
    if not 0 < tol < 1:
        raise ValueError(f"expected a tolerance 0 < tol < 1, got {tol}")
    if start is not None and (start.shape[0] != n or start.ndim > 2):
        raise ValueError(f"expected start of shape ({n},) or ({n}, j), got {tuple(start.shape)}")
    if start is not None and not start.isfinite().all():
        raise ValueError("expected a finite start, got one with NaN or infinity")


def _columns(A: LinearOperator, start: Tensor | None) -> Float[Tensor, "j n"]:
    if start is None:
        return torch.empty(0, A.shape[1], dtype=A.dtype, device=A.device)
    return start.reshape(A.shape[1], -1).T.to(A.dtype).to(A.device)


@dataclass(frozen=True)
class _Search:
    """The Rayleigh-Ritz iteration with its settings."""

    A: LinearOperator
    which: Which
    tol: float
    spent: Spent
    capacity: int
    generator: torch.Generator

    def pairs(self, k: int, start: Float[Tensor, "j n"], verify: bool) -> EigenPairs:
        """Iterate, and look for rivals until there is none."""
        ritz = self.run(k, start)
        certain = not verify
        while not certain and ritz.finite and ritz.room and not self.spent.exhausted:
            rival, certain = self.rival(ritz, k)
            if rival is not None:
                ritz = self.run(k, torch.cat([ritz.vectors(k), rival]))
        if not ritz.finite:
            return _nonfinite(self.A, k, self.spent.matvecs)
        certain = certain or not ritz.room
        return EigenPairs(
            values=ritz.values[:k].to(self.A.dtype),
            vectors=ritz.vectors(k).T,
            residuals=torch.tensor([ritz.residual_norm(i) for i in range(k)], dtype=self.A.dtype),
            converged=torch.tensor([certain and ritz.converged(i, self.tol) for i in range(k)]),
            matvecs=self.spent.matvecs,
        )

    def _basis(self, locked: Float[Tensor, "j n"]) -> Basis:
        return Basis(self.A, self.spent, self.generator, self.capacity, locked)

    def run(self, k: int, start: Float[Tensor, "j n"]) -> Ritz:
        """Iterate until k pairs have converged or the budget is spent."""
        basis = self._basis(locked=start[:0])
        for vector in start[: self.capacity]:
            basis.add(vector)
        if basis.size == 0:
            basis.add(None)
        while True:
            ritz = Ritz(basis, self.which)
            worst = ritz.first_unconverged(k, self.tol)
            if worst is None or not ritz.room or self._must_stop(ritz, k):
                return ritz
            self._grow(basis, ritz, worst, keep=k)

    def rival(self, ritz: Ritz, k: int) -> tuple[Float[Tensor, "1 n"] | None, bool]:
        """Look outside k pairs for a better one: the rival if any, and whether that is certain."""
        edge = float(preference(ritz.values[k - 1], self.which))
        margin = max(self.tol * abs(edge), ritz.rounding)
        basis = self._basis(locked=ritz.vectors(k))
        basis.add(None)
        while True:
            outside = Ritz(basis, self.which)
            if not outside.finite:
                return None, False
            value = float(preference(outside.values[0], self.which))
            if value > edge + margin:
                return outside.vectors(1), False
            looked = len(outside.values) >= RIVAL_STEPS or outside.residual_norm(0) == 0
            clear = value + outside.residual_norm(0) <= edge and outside.converged(0, RIVAL_TOL)
            if not outside.room or (looked and (clear or outside.converged(0, self.tol))):
                return None, True
            if self._must_stop(outside, 1):
                return None, False
            self._grow(basis, outside, 0, keep=1)

    def _must_stop(self, ritz: Ritz, k: int) -> bool:
        return not ritz.finite or (self.spent.exhausted and len(ritz.values) >= k)

    def _grow(self, basis: Basis, ritz: Ritz, follow: int, keep: int) -> None:
        direction = ritz.residual(follow) if follow < len(ritz.values) else None
        if basis.size == self.capacity:
            basis.restart(ritz, keep + (self.capacity - keep) // 2)
        basis.add(direction)
