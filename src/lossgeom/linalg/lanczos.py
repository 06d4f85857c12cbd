"""Extreme eigenpairs of a symmetric operator by Lanczos iteration."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.linalg._arithmetic import plain_arithmetic
from lossgeom.linalg._checks import check_at_least
from lossgeom.linalg._krylov import Krylov
from lossgeom.linalg._orthonormal import Spent
from lossgeom.linalg._ritz import Ritz, Which, preference
from lossgeom.linalg.eigenpairs import (
    EigenPairs,
    check_search,
    found_pairs,
    search_limit,
    start_rows,
)
from lossgeom.linalg.operator import LinearOperator, as_operator
from lossgeom.linalg.probes import random_numbers

RIVAL_TOL = 0.1  # a rival clearly out of reach need not be known any better
GROWTH = 100.0  # so that a hundredth of a random vector's typical share would be seen
RIVAL_STEPS = 4  # to take before one may be ruled out
FURTHER = 3  # products that a single pair from a random start is verified with
MARGIN = 10.0  # tolerances by which a pair that is looked for exceeds the one found
MAX_BASIS = 60
MEMORY_BUDGET = 2 * 2**30  # bytes of a basis


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
    same rule also goes on after a restart and from any start block. What residuals span is carried
    along in place of the images of the basis. The projected matrix is held and diagonalised in
    float64.

    A Krylov space holds one vector of each eigenspace, so copies of a multiple eigenvalue can be
    missed, and a good start can hide a better pair. The result is therefore *verified*: a second
    iteration, from a random vector orthogonal to the pairs found, looks for a rival until the best
    that it sees has settled below them; a rival joins the start block and the search goes on. Like
    every Krylov method this finds what a random vector sees of, and can miss a pair in a large
    cluster; it proves nothing.

    For a single pair from a random start b the first iteration knows itself what it can have
    missed. The Ritz vector y with value theta and residual r is a polynomial in A times b that has
    its zeros among the other Ritz values, and so is larger at any eigenvalue lambda beyond theta:
    of a unit eigenvector u there,

    .. math:: |u \cdot b| \, / \, |y \cdot b| \le |u \cdot y| \le \|r\| / |\lambda - \theta|,

    and a random start has less than a hundredth of the typical share of u once in 125 times. By
    default the iteration goes on, for up to 3 products, until that rules out a lambda beyond theta
    by ten tolerances; where these do not suffice, ``verified`` is False.

    Cost: one product per basis vector, and about 4 n m flops per vector for a basis of m; memory
    n m numbers. Verification typically adds 5 to 10 products, and for a single pair from a random
    start at most 3. The residuals take k more.

    Args:
        A: symmetric n x n matrix, see :func:`lossgeom.linalg.as_operator`.
        k: how many pairs.
        which: ``"largest"`` or ``"smallest"`` signed eigenvalues, or the largest ``"magnitude"``.
        tol: between 0 and 1. A pair has converged when ``||A v - lambda v||`` is at most tol times
            ``|lambda|`` and the spread of the spectrum, or is rounding error of ``||A||``.
        max_matvecs: products to spend at most, though never fewer than 2 k; default
            ``max(100, 20 k)``. What has not converged by then says so.
        max_basis: basis vectors to hold at most, though never fewer than 2 k + 2; beyond it the
            method restarts from the best of them. By default as many as take 2 GiB, but no more
            than 60.
        start: (n,) or (n, j) vectors to start from, such as the eigenvectors of a nearby matrix.
        verify: whether to look for pairs that were missed with a second iteration; by default when
            ``k > 1`` or ``start`` is given, while a single pair from a random start gets 3 products
            at most. False spends none, and True in any case what it takes: where the next
            eigenvalue is within a few percent, that one is otherwise returned for some seeds in a
            hundred or, after 3 products, in several hundred.
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
    check_search(A, k, which, tol, start)
    check_at_least(1, max_matvecs=max_matvecs, max_basis=max_basis)
    with plain_arithmetic(A.device), torch.no_grad():
        search = _Search(
            A,
            which=which,
            tol=tol,
            spent=Spent(search_limit(max(100, 20 * k) if max_matvecs is None else max_matvecs, k)),
            capacity=min(A.shape[1], max(_room(A) if max_basis is None else max_basis, 2 * k + 2)),
            generator=random_numbers(seed),
        )
        return search.pairs(k, start_rows(A, start), verify)


def _room(A: LinearOperator) -> int:
    return min(MAX_BASIS, MEMORY_BUDGET // (A.shape[1] * A.dtype.itemsize))


@dataclass(frozen=True)
class _Search:
    """The Rayleigh-Ritz iteration with its settings."""

    A: LinearOperator
    which: Which
    tol: float
    spent: Spent
    capacity: int
    generator: torch.Generator

    def pairs(self, k: int, start: Float[Tensor, "j n"], verify: bool | None) -> EigenPairs:
        """Iterate, and look for rivals until there is none."""
        alone = k == 1 and not len(start)
        ritz = self.run(k, start, further=FURTHER if alone and verify is None else 0)
        if verify or (verify is None and not alone):
            ritz, certain = self._without_rivals(ritz, k)
            return found_pairs(ritz, k, self.tol, missing=not certain, verified=certain)
        verified = self._shown(ritz) if alone else not ritz.room
        return found_pairs(ritz, k, self.tol, missing=False, verified=verified)

    def _without_rivals(self, ritz: Ritz, k: int) -> tuple[Ritz, bool]:
        """Pairs that no rival was found to, and whether that is certain."""
        certain = False
        while not certain and ritz.finite and ritz.room and not self.spent.exhausted:
            rival, certain = self.rival(ritz, k)
            if rival is not None:
                ritz = self.run(k, torch.cat([ritz.vectors(k), rival]))
        return ritz, certain or not ritz.room

    def _basis(self, start: Float[Tensor, "j n"], locked: Float[Tensor, "k n"]) -> Krylov:
        basis = Krylov(self.A, self.spent, self.generator, self.capacity + 1, locked)
        basis.start(start[: self.capacity])
        return basis

    def run(self, k: int, start: Float[Tensor, "j n"], further: int = 0) -> Ritz:
        """Iterate until k pairs have converged or the budget is spent.

        Then go on for some products further, as long as a better pair may not have shown itself.
        """
        basis = self._basis(start, locked=start[:0])
        worst: int | None = 0
        while True:
            ritz = Ritz(basis, self.which)
            worst = ritz.first_unconverged(k, self.tol, guess=worst or 0)
            if worst is None and further and len(basis.coupling) and not self._shown(ritz):
                worst, further = 0, further - 1
            if worst is None or not ritz.room or self._must_stop(ritz, k):
                return ritz
            self._grow(basis, ritz, worst, keep=k)

    def _shown(self, ritz: Ritz) -> bool:
        """Whether the start would have shown any eigenvalue beyond the best by ten tolerances.

        Of an eigenvector there the Ritz vector has at least what its polynomial makes of a
        hundredth of the start's typical share, and at most what its residual allows.
        """
        if not ritz.room:
            return True
        if not (ritz.of_one_vector and ritz.converged(0, self.tol)):
            return False
        best, others = float(ritz.values[0]), ritz.values[1:]
        share = float(ritz.weights[0, 0].abs()) * GROWTH * math.sqrt(self.A.shape[0])
        hidden = share * max(ritz.residual_norm(0), ritz.rounding)
        return all(
            abs(place - best) * float(((place - others) / (best - others)).abs().prod()) >= hidden
            for place in self._beyond(best)
        )

    def _beyond(self, best: float) -> list[float]:
        """The nearest places of eigenvalues that are better by ten tolerances."""
        margin = MARGIN * self.tol * abs(best)
        if self.which != "magnitude":
            return [best + margin if self.which == "largest" else best - margin]
        outer = best + math.copysign(margin, best)
        return [outer, -outer]

    def rival(self, ritz: Ritz, k: int) -> tuple[Float[Tensor, "1 n"] | None, bool]:
        """Look outside k pairs for a better one: the rival if any, and whether that is certain."""
        edge = float(preference(ritz.values[k - 1], self.which))
        margin = max(self.tol * abs(edge), ritz.rounding)
        locked = ritz.vectors(k)
        basis = self._basis(locked[:0], locked)
        while True:
            outside = Ritz(basis, self.which)
            if not outside.finite:
                return None, False
            value = float(preference(outside.values[0], self.which))
            if value > edge + margin:
                return outside.vectors(1), False
            looked = len(outside.values) >= RIVAL_STEPS or outside.residual_norm(0) == 0
            settled = self._below(outside, edge) or outside.converged(0, self.tol)
            if not outside.room or (looked and settled):
                return None, True
            if self._must_stop(outside, 1):
                return None, False
            self._grow(basis, outside, 0, keep=1)

    def _below(self, outside: Ritz, edge: float) -> bool:
        """Whether the best rival is clearly below the edge, and one above it would have shown.

        Either it has come to rest roughly, or the Krylov space, of dimension m, has amplified what
        lies at the edge over all else, in [low, high], by the Chebyshev polynomial of degree m - 1
        so far that a small share of the random start would be seen.
        """
        seen, error = preference(outside.values, self.which), outside.residual_norm(0)
        high = seen[0].item() + error
        low = -high if self.which == "magnitude" else seen.min().item() - error
        if high >= edge or high <= low:
            return high <= edge and outside.converged(0, RIVAL_TOL)
        rate = math.acosh(1 + 2 * (edge - high) / (high - low))
        shown = (len(seen) - 1) * rate >= math.acosh(GROWTH * math.sqrt(self.A.shape[0]))
        return shown or outside.converged(0, RIVAL_TOL)

    def _must_stop(self, ritz: Ritz, k: int) -> bool:
        return not ritz.finite or (self.spent.exhausted and len(ritz.values) >= k)

    def _grow(self, basis: Krylov, ritz: Ritz, follow: int, keep: int) -> None:
        there = follow < len(ritz.values)
        direction = basis.coupling @ ritz.weights[:, follow] if there else None
        if basis.size == self.capacity:
            basis.restart(ritz.weights[:, : keep + (self.capacity - keep) // 2])
        basis.grow(direction)
