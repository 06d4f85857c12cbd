"""Extreme eigenpairs of a symmetric operator by LOBPCG, a block at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.linalg._arithmetic import plain_arithmetic
from lossgeom.linalg._basis import Basis
from lossgeom.linalg._checks import check_at_least
from lossgeom.linalg._orthonormal import Spent, lengths
from lossgeom.linalg._ritz import Ritz, Which, preference
from lossgeom.linalg.eigenpairs import (
    EigenPairs,
    check_search,
    found_pairs,
    search_limit,
    start_rows,
)
from lossgeom.linalg.lanczos import RIVAL_STEPS, RIVAL_TOL
from lossgeom.linalg.operator import LinearOperator, as_operator
from lossgeom.linalg.probes import BLOCK, random_numbers


def lobpcg(
    A: LinearOperator | Tensor | Any,
    k: int = 1,
    *,
    which: Which = "largest",
    start: Tensor | None = None,
    preconditioner: LinearOperator | Tensor | Any | None = None,
    tol: float = 1e-3,
    max_matvecs: int | None = None,
    seed: int = 0,
) -> EigenPairs:
    r"""The k extreme eigenpairs of a symmetric matrix A, for good start vectors or preconditioners.

    Rayleigh-Ritz on the span of the current vectors X, their residuals W = T (A X - X Theta) and
    the last step P, of which X and P come from the last span by orthogonal combinations, and W is
    made orthogonal to both before it is multiplied. Pairs that have converged stay in the basis
    but ask for no further products. Besides the k vectors, one random vector is iterated until it
    has settled below them, so that a start which hides a better pair, or a copy, is noticed.

    Where nothing is known beforehand :func:`top_eigenpairs` needs fewer products; this method takes
    them in blocks, and remembers three blocks only. Along a run, ``start`` is the last result's
    ``vectors``.

    Cost: at most k + 1 products in a step and k for the residuals, in blocks of at most 8; memory
    6 (k + 1) n numbers.

    Args:
        A: symmetric n x n matrix, see :func:`lossgeom.linalg.as_operator`.
        k: how many pairs.
        which: ``"largest"`` or ``"smallest"`` signed eigenvalues.
        start: (n,) or (n, j) vectors to start from, such as the eigenvectors of a nearby matrix.
        preconditioner: symmetric positive definite matrix T, close to the inverse of A minus the
            wanted eigenvalue.
        tol: between 0 and 1, of the residuals, as of :func:`top_eigenpairs`.
        max_matvecs: products to spend at most, though never fewer than the start takes and k for
            the residuals; default ``max(200, 40 k)``. What has not converged by then says so.
        seed: of random vectors; drawn on the CPU from a generator of its own.

    Returns:
        The pairs, most wanted first. Where products are not finite, values are NaN and nothing has
        converged.

    Raises:
        TypeError: if A is no matrix, or not in float32 or float64.
        ValueError: if A is not square or not symmetric, k is not in 1..n, ``which`` is not one of
            the two, tol is not in (0, 1), max_matvecs is not positive, or start or preconditioner
            do not fit.

    Source: Knyazev, Toward the optimal preconditioned eigensolver (2001); the basis as in Duersch
    et al., A robust and efficient implementation of LOBPCG, arXiv:1704.07458.

    >>> pairs = lobpcg(torch.diag(torch.tensor([3.0, -5.0, 1.0, 3.0])), k=2)
    >>> [round(value, 5) for value in pairs.values.tolist()], pairs.converged.all().item()
    ([3.0, 3.0], True)
    """
    A = as_operator(A)
    if which == "magnitude":
        raise ValueError(
            "expected which to be 'largest' or 'smallest', got 'magnitude', whose eigenvalues may "
            "lie at both ends; use top_eigenpairs, or both ends"
        )
    check_search(A, k, which, tol, start)
    check_at_least(1, max_matvecs=max_matvecs)
    T = None if preconditioner is None else as_operator(preconditioner)
    if T is not None and T.shape != A.shape:
        raise ValueError(f"expected a preconditioner of shape {A.shape}, got {T.shape}")
    with plain_arithmetic(A.device), torch.no_grad():
        rows = start_rows(A, start)
        width = min(A.shape[0], max(k, len(rows)) + 1)
        limit = max(200, 40 * k) if max_matvecs is None else max_matvecs
        spent = Spent(search_limit(limit, k))
        generator = random_numbers(seed)
        basis = Basis(A, spent, generator, min(A.shape[0], 3 * width))
        return _Iteration(basis, spent, k, width, which, tol, T).pairs(rows)


@dataclass(frozen=True)
class _Iteration:
    """LOBPCG with its settings; the basis holds X, P and W, in this order."""

    basis: Basis
    spent: Spent
    k: int
    width: int
    which: Which
    tol: float
    preconditioner: LinearOperator | None

    def pairs(self, start: Float[Tensor, "j n"]) -> EigenPairs:
        """Iterate until all pairs have converged and no rival is left, or the budget is spent."""
        for block in torch.split(start[: self.width], BLOCK):
            self.basis.add(block)
        self.basis.add_random(self.width - self.basis.size)
        steps = 0
        while True:
            ritz = Ritz(self.basis, self.which)
            best = slice(self.width)
            residuals = self.basis.residuals(ritz.weights[:, best], ritz.values[best])
            ritz.note(lengths(residuals))
            active = [i for i in range(self.width) if not ritz.converged(i, self.tol)]
            certain = self._certain(ritz, steps)
            done = certain and not (active and active[0] < self.k)
            if done or not ritz.finite or not ritz.room or self.spent.exhausted:
                return found_pairs(ritz, self.k, self.tol, missing=not certain, verified=certain)
            self._step(ritz, active, residuals)
            steps += 1

    def _certain(self, ritz: Ritz, steps: int) -> bool:
        """Whether the pair after the wanted ones has settled below them."""
        if not ritz.room:
            return True
        if not ritz.finite or steps < RIVAL_STEPS:
            return False
        edge, rival = preference(ritz.values[[self.k - 1, self.k]], self.which).tolist()
        clear = rival + ritz.residual_norm(self.k) <= edge and ritz.converged(self.k, RIVAL_TOL)
        return clear or ritz.converged(self.k, self.tol)

    def _step(self, ritz: Ritz, active: list[int], residuals: Float[Tensor, "b n"]) -> None:
        """Replace the basis by the best vectors, what they gained, and their residuals."""
        active = active[: self.spent.limit - self.spent.matvecs]
        X = ritz.weights[:, : self.width]
        gained = X[:, active].clone()
        gained[: self.width] = 0
        P = _orthonormal_part(gained, X)
        self.basis.restart(torch.cat([X, P], dim=1))
        W = residuals[active]
        if self.preconditioner is not None:
            W = self.preconditioner.matmat(W.T).T.to(W)
        for block in torch.split(W, BLOCK):
            if self.basis.room:  # which the blocks before may have filled
                self.basis.add(block)


def _orthonormal_part(
    columns: Float[Tensor, "m j"], against: Float[Tensor, "m b"]
) -> Float[Tensor, "m r"]:
    """An orthonormal basis of what columns add to orthonormal ones."""
    for _ in range(2):
        columns = columns - against @ (against.T @ columns)
    U, sizes, _ = torch.linalg.svd(columns, full_matrices=False)
    basis = U[:, sizes > 1e-10 * max(1e-6, sizes.max().item())] if len(sizes) else U
    Q: Tensor = torch.linalg.qr(basis - against @ (against.T @ basis))[0]
    return Q
