"""Extreme eigenpairs of a symmetric operator by Lanczos iteration."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.linalg._beside import Beside
from lossgeom.linalg._krylov import Krylov, Products
from lossgeom.linalg._ritz import GROWTH, WHICH, EigenPairs, Ritz, Which, preference, unknown_pairs
from lossgeom.linalg._rounding import PROBES, rounded
from lossgeom.linalg.arithmetic import lengths, plain_arithmetic, random_numbers
from lossgeom.linalg.operator import DTYPES, LinearOperator, as_operator
from lossgeom.messages.wording import one_of

HIDDEN = 0.2  # of what counts as rounding of a product: what it may hide of a residual
RIVAL_TOL = 0.1  # a rival clearly out of reach need not be known any better
RIVAL_STEPS = 4  # to take before one may be ruled out
FURTHER = 3  # products that a single pair from a random start is verified with
PLENTY = 16  # rows for each pair, of which half hold what a whole basis knew
MAX_BASIS = 60
LONG = 2**25  # bytes of a vector from which on memory for more costs as much as restarts
OF_LONG = 24  # such vectors for each pair


def top_eigenpairs(
    A: LinearOperator | Tensor | Any,
    k: int = 1,
    *,
    which: Which = "largest",
    tol: float = 1e-3,
    max_matvecs: int | None = None,
    max_basis: int | None = None,
    basis_on: torch.device | str | None = None,
    start: Tensor | None = None,
    verify: bool | None = None,
    seed: int = 0,
) -> EigenPairs:
    r"""The k extreme eigenpairs of a symmetric matrix A.

    Rayleigh-Ritz on a basis that grows by the residual of the first wanted pair that has not
    converged. From a single start vector that is Lanczos iteration with full
    reorthogonalisation, because all residuals are then parallel to the next Lanczos vector; the
    same rule also goes on from any start block and after a restart, which keeps the best Ritz
    vectors and the one followed last as it was before. For a single pair from a random start, and
    without a second iteration, orthogonality to the root of the unit of rounding will do, so that
    most steps read the last two vectors in place of the basis. What residuals span is carried along
    in place of the images of the basis. The projected matrix is diagonalised in float64.

    A Krylov space holds one vector of each eigenspace, so copies of a multiple eigenvalue can be
    missed, and a good start can hide a better pair. The result is therefore *verified*: a second
    iteration, from a random vector orthogonal to the first basis, on what the basis leaves of A (a
    Schur complement), looks for a rival until the best that it sees has settled below the pairs
    found; a rival joins the start block and the search goes on. This finds what a random vector
    sees of, and can miss a pair in a large cluster; it proves nothing.

    For a single pair from a random start b the first iteration knows itself what it can have
    missed. The Ritz vector y with value theta and residual r is a polynomial in A times b, known
    also after restarts, and is larger at any eigenvalue lambda beyond theta:
    of a unit eigenvector u there,

    .. math:: |u \cdot b| \, / \, |y \cdot b| \le |u \cdot y| \le \|r\| / |\lambda - \theta|,

    and a random start has less than a hundredth of the typical share of u once in 125 times. By
    default the iteration goes on, for up to 3 products, until that rules out a lambda beyond theta
    by ten tolerances; where these do not suffice, ``verified`` is False.

    Cost: one product per basis vector, and about 4 n m flops per vector for a basis of m, and
    memory for n m numbers. Verification typically adds 4 to 8 products, and for a single pair from
    a random start at most 3. The residuals take k more; of more than 8 pairs one, or five where
    products round much, and one for each pair of which what the basis knows, with all rounding in
    it, is not within the tolerance.

    Args:
        A: symmetric n x n matrix, see :func:`lossgeom.linalg.as_operator`.
        k: how many pairs.
        which: ``"largest"`` or ``"smallest"`` signed eigenvalues, or the largest ``"magnitude"``.
        tol: between 0 and 1. A pair has converged when ``||A v - lambda v||`` is at most tol times
            ``|lambda|`` and the spread of the spectrum, or is rounding error of ``||A||``.
        max_matvecs: products to spend at most, though never fewer than 2 k; default
            ``max(100, 20 k)``. What has not converged by then says so.
        max_basis: basis vectors to hold before a restart, though never fewer than 2 k + 2, and one
            more. By default what the matrix's budget or half of the free memory holds, up to 60,
            and of vectors with more than 32 MiB up to 24 for each pair.
        basis_on: the device that holds them; by default the matrix's, or the CPU where a GPU has no
            room for 2 k + 3 and no budget was given.
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

    Source: Parlett, The Symmetric Eigenvalue Problem (1998), chapters 11-13; Simon, The Lanczos
    algorithm with partial reorthogonalization (1984); Wu and Simon, Thick-restart Lanczos (2000);
    Stathopoulos, Nearly optimal methods under limited memory (2007).

    >>> pairs = top_eigenpairs(torch.diag(torch.tensor([3.0, -5.0, 1.0, 3.0])), k=2)
    >>> [round(value, 5) for value in pairs.values.tolist()], pairs.converged.all().item()
    ([3.0, 3.0], True)
    """
    n = (A := as_operator(A)).shape[0]
    if A.shape != (n, n):
        raise ValueError(f"expected a square symmetric operator, got shape {A.shape}")
    if not 1 <= k <= n:
        raise ValueError(f"expected 1 <= k <= {n}, the size of the operator; got k={k}")
    if which not in WHICH:
        raise ValueError(f"expected which to be one of {one_of(WHICH)}, got {which!r}")
    if A.dtype not in DTYPES:
        raise TypeError(f"expected an operator in float32 or float64, got {A.dtype}")
    if not 0 < tol < 1:
        raise ValueError(f"expected a tolerance 0 < tol < 1, got {tol}")
    if start is not None and (start.shape[0] != n or start.ndim > 2):
        raise ValueError(f"expected start of shape ({n},) or ({n}, j), got {tuple(start.shape)}")
    if start is not None and not start.isfinite().all():
        raise ValueError("expected a finite start, got one with NaN or infinity")
    for name, most in (("max_matvecs", max_matvecs), ("max_basis", max_basis)):
        if most is not None and most < 1:
            raise ValueError(f"expected {name} of at least 1, got {most}")
    limit, vector = max_matvecs or max(100, 20 * k), n * A.dtype.itemsize
    memory = A.memory.for_vectors(vector, 2 * k + 3, basis_on)
    most = MAX_BASIS if vector < LONG else min(MAX_BASIS, OF_LONG * k)
    capacity = max(max_basis or memory.vectors(vector, most + 1) - 1, 2 * k + 2) + 1
    settings = {"k": k, "which": which, "tol": tol, "max_matvecs": limit, "seed": seed}
    held = memory.holding("a basis", min(capacity, n) * vector, **settings)
    with held, plain_arithmetic(A.device), torch.no_grad():
        products = Products(A, max(limit - k, k))  # k more are for the residuals
        search = _Search(products, which, tol, capacity, random_numbers(seed))
        rows = torch.empty(0, n) if start is None else start.reshape(n, -1).T
        return search.pairs(k, rows.to(memory.device, A.dtype), verify)


@dataclass(frozen=True)
class _Search:
    """The Rayleigh-Ritz iteration with its settings."""

    products: Products
    which: Which
    tol: float
    capacity: int
    generator: torch.Generator

    def pairs(self, k: int, start: Float[Tensor, "j n"], verify: bool | None) -> EigenPairs:
        """Iterate, and look for rivals until there is none."""
        alone, products = k == 1 and not len(start), self.products
        further = FURTHER if alone and verify is None else 0
        ritz = self._run(k, start, further, nearly=alone and not verify)
        if not verify and (alone or verify is False):
            verified = ritz.shown(self.tol, self.which) if alone else not ritz.basis.room
            pairs = self._multiplied(ritz, k, missing=False, verified=verified)
            more = products.finite and products.spent < products.limit
            if alone and more and ritz.converged(self.tol)[0] and not pairs.converged:
                start = ritz.vectors(k)
                del ritz  # and with it the basis, before there is one that is orthogonal throughout
                pairs = self._multiplied(self._run(k, start), k, missing=False, verified=verified)
            return pairs
        while True:
            rival, certain = self._rival(ritz, k)
            if rival is None:
                return self._multiplied(ritz, k, missing=not certain, verified=certain)
            ritz = self._run(k, torch.cat([ritz.vectors(k), rival]))

    def _run(
        self, k: int, start: Float[Tensor, "j n"], further: int = 0, *, nearly: bool = False
    ) -> Ritz:
        """Iterate until k pairs have converged, and further while a better one may be hidden."""
        products, start, worst = self.products, start[: (self.capacity - 1) // 2], 0
        basis = Krylov(products, start, start[:0], self.capacity, self.generator, nearly)
        blind = k - len(basis.projection)  # steps without a look at pairs
        while True:
            steps = min(blind, products.limit - products.spent, self.capacity - 1 - len(basis.rows))
            while (steps := steps - 1) >= 0 and len(basis.coupling) == 1 and products.finite:
                basis.grow(torch.eye(len(basis.projection)).double()[-1])
            ritz = Ritz.of(basis, self.which)
            converged = ritz.converged(self.tol)[:k].tolist()
            converged += [False] * (k - len(converged))
            if converged[worst] and not all(converged):
                worst = converged.index(False)
            elif all(converged):
                if not (further and len(basis.coupling)) or ritz.shown(self.tol, self.which):
                    return ritz
                worst, further = 0, further - 1
            if not self._grown(ritz, worst, keep=k):
                return ritz
            blind = converged.count(False) // 4  # few converge in a step

    def _grown(self, ritz: Ritz, follow: int, keep: int) -> bool:
        """Grow the basis by the residual of a pair, restarted where it is full, if it may be."""
        basis, found = ritz.basis, len(ritz.values)
        spent = self.products.spent >= self.products.limit and found >= keep
        if spent or not basis.room or not self.products.finite:
            return False
        weights = ritz.weights[:, follow] if follow < found else torch.zeros(found).double()
        if len(basis.rows) >= self.capacity:  # of which each vector kept takes two, one in F
            kept = min(keep + (found - keep) // 2, (self.capacity - 1) // 2 - 1)
            few = self.capacity < PLENTY * keep
            weights = basis.restart(ritz.weights[:, :kept], few=few).T @ weights
        basis.grow(weights)
        return True

    def _rival(self, ritz: Ritz, k: int) -> tuple[Float[Tensor, "1 n"] | None, bool]:
        """Look outside k pairs for a better one: the rival if any, and whether that is certain."""
        products = self.products
        if not (ritz.basis.room and products.finite and products.spent < products.limit):
            return None, not ritz.basis.room
        edge = float(preference(ritz.values[k - 1], self.which))
        place = edge + max(self.tol * abs(edge), products.rounding)  # rivals are beyond it
        beside = Beside.of(ritz, k, place, self.which)
        with beside.multiplied(products):
            rival, certain = self._beyond(beside.locked, edge, place)
        return None if rival is None else beside.completed(rival), certain

    def _beyond(
        self, locked: Float[Tensor, "l n"], edge: float, place: float
    ) -> tuple[Float[Tensor, "1 n"] | None, bool]:
        """Look beside some rows for a pair beyond a place: one, and whether that is certain."""
        products = self.products
        basis = Krylov(products, locked[:0], locked, self.capacity, self.generator)
        while products.finite:
            outside = Ritz.of(basis, self.which)
            best = float(preference(outside.values[0], self.which))
            if best > place:
                return outside.vectors(1), False
            hidden = float(outside.residuals[0]) * GROWTH * math.sqrt(products.A.shape[0])
            looked = len(outside.values) >= RIVAL_STEPS or hidden <= place - best
            settled = self._below(outside, edge) or bool(outside.converged(self.tol)[0])
            if not basis.room or (looked and settled):
                return None, True
            if not self._grown(outside, 0, keep=1):
                break
        return None, False

    def _below(self, outside: Ritz, edge: float) -> bool:
        """Whether the best rival is clearly below the edge, and one above it would have shown.

        Either it has come to rest roughly, or the Krylov space, of dimension m, has amplified what
        lies at the edge over all else, in [low, high], by the Chebyshev polynomial of degree m - 1
        so far that a small share of the random start would be seen.
        """
        seen, error = preference(outside.values, self.which), float(outside.residuals[0])
        high = seen[0].item() + error
        low = -high if self.which == "magnitude" else seen.min().item() - error
        resting = bool(outside.converged(RIVAL_TOL)[0])
        if high >= edge or high <= low:
            return high <= edge and resting
        rate = math.acosh(1 + 2 * (edge - high) / (high - low))
        shown = (len(seen) - 1) * rate >= math.acosh(GROWTH * math.sqrt(self.products.A.shape[0]))
        return shown or resting

    def _multiplied(self, ritz: Ritz, k: int, *, missing: bool, verified: bool) -> EigenPairs:
        """The k most wanted pairs with their residuals; none converged if one may be missing.

        Few pairs are multiplied once more. Of many, what a basis knows of their residuals is enough
        where its rounding, as probes show it, leaves them within the tolerance.
        """
        products, A = self.products, self.products.A
        if products.finite:
            values, rows = ritz.values[:k].to(A.dtype), ritz.vectors(k)
            few, known = k <= 2 * PROBES, ritz.residuals[:k] + products.rounding
            residuals = known if few else rounded(ritz, known, self.tol, self.generator)
            unknown = ~(residuals <= self.tol * ritz.scales[:k]) | few
            if unknown.any():
                some, own = rows[unknown.to(rows.device)], values[unknown, None].to(rows)
                differences = torch.addcmul(products.of(some), own, some, value=-1)
                residuals[unknown] = lengths(differences).cpu() + HIDDEN * products.rounding
            products.finite = bool(residuals.isfinite().all())
        if not products.finite:
            return unknown_pairs(k, A, products.spent)
        goals = (self.tol * ritz.scales[:k]).clamp(min=2 * products.rounding)
        return EigenPairs(
            values=values,
            vectors=rows.T.to(A.device),
            residuals=residuals.to(A.dtype),
            converged=(residuals <= goals) & (not missing),
            matvecs=products.spent,
            verified=verified,
        )
