"""Quadratures of a spectrum from random probes, beside its outliers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lossgeom.linalg._quadrature import Quadrature, quadrature
from lossgeom.linalg._ritz import EigenPairs
from lossgeom.linalg._sketch import without
from lossgeom.linalg.operator import Dense, LinearOperator, MatrixFree
from lossgeom.linalg.probes import BLOCK, draw_signs, groups

WORKING_VECTORS = 6  # of one iteration, besides its basis
PARALLEL = 1e-3  # what orthonormal vectors may have in common by rounding
CONVERGED = 3e-3  # of the resolution: what a residual is for a typical share in the probe
ATYPICAL, LARGE = 10, 40  # times that residual at most, and times a typical weight
APART = 0.25  # resolutions from all others, at which a pair is worth a few steps more
NEAR, SEEN = 1e-2, 1e-4  # resolutions from an outlier, and weights, at which probes see a copy


@dataclass(frozen=True)
class Sampled:
    """Nodes and weights of every probe; those of the outliers, which all share, come first."""

    nodes: Float[Tensor, "r m"]
    weights: Float[Tensor, "r m"]
    outliers: int
    reorthogonalized: bool
    matvecs: int


def sample(
    A: LinearOperator,
    probes: int,
    steps: int,
    memory_budget: int,
    signs: torch.Generator,
    known: EigenPairs | None,
) -> Sampled:
    """Take the quadrature of each probe, with outliers taken out where that pays."""
    n, size = A.shape[0], A.dtype.itemsize
    working = n * WORKING_VECTORS * size
    with_basis = memory_budget // (working + n * steps * size)
    kept, together = with_basis > 0, max(1, with_basis or memory_budget // working)

    def rows(k: int, steps: int, Q: Tensor | None) -> list[Quadrature]:
        beside = MatrixFree(
            A.shape, A.dtype, A.device, lambda V: without(Q, A.matmat(V)), lambda: beside
        )
        blocks = (draw_signs(A, j, signs) for j in groups(k, min(BLOCK, together)))
        return [quadrature(beside, without(Q, Z), steps, kept)[0] for Z in blocks]

    if known is not None:
        found, V = _checked(A, known)
        left = steps - min(len(found), steps // 2)
        return _beside(found, n, _joined(rows(probes, left, V), kept, spent=1))
    few = steps // 2 if kept else 0  # outliers, at most
    longest = min(steps + few, max(steps, (memory_budget - working) // (n * size)), n - 1)
    first, basis = quadrature(
        A, draw_signs(A, 1, signs), steps, kept, longest,
        lambda found: _promising(found, n, few, math.inf if probes == 1 else ATYPICAL),
    )  # fmt: skip
    chosen = _outliers(first, n, few)
    values, q = first.nodes[0, chosen], len(chosen)
    Q = (first.vectors[0][:, chosen].T.to(basis) @ basis[0]).T if q and probes > 1 else None
    del basis
    fresh = rows(probes - 1, steps - q, Q)
    if _seen_again(values, fresh, n, NEAR * resolution(first.nodes)):
        fresh += rows(1, steps - q, Q)
    else:
        all_steps = first.nodes.shape[1] if probes == 1 else steps
        fresh = [_rest(first, chosen, all_steps - q), *fresh]
    return _beside(values, n, _joined(fresh, kept, first.matvecs))


def _checked(
    A: LinearOperator, known: EigenPairs
) -> tuple[Float[Tensor, " q"], Float[Tensor, "n q"]]:
    """Those of some eigenpairs that have converged, which a product shows to be those of A."""
    values, residuals = known.values[known.converged], known.residuals[known.converged]
    Q = known.vectors[:, known.converged].to(A.device, A.dtype)
    if right := len(Q) == A.shape[1]:
        off = A.matmat(Q.sum(1, keepdim=True))[:, 0] - Q @ values.to(Q)
        overlap = (Q.T @ Q - torch.eye(len(values)).to(Q)).abs().max() if len(values) else 0.0
        right = bool(off.double().norm().cpu() <= 2 * residuals.sum() < math.inf)
        right = right and bool(overlap <= PARALLEL)
    if not right:
        raise ValueError(
            "expected known= to be eigenpairs of this matrix, and they are not; find them by "
            "top_eigenpairs, of the same problem at the same parameters"
        )
    return values, Q


def _unsettled(first: Quadrature, n: int) -> Float[Tensor, " m"]:
    """How far pairs are from having converged, from 1 on; infinite for what is no single pair.

    The share in the vector, z . u, must hardly decide that, so that beside these pairs the vector
    is as good a probe as another. Residuals rise as it falls, so that their product hardly depends
    on it.
    """
    residuals, shares = first.residuals[0], n * first.weights[0]
    goal = CONVERGED * resolution(first.nodes)
    ratios: Tensor = torch.maximum(residuals * shares.sqrt(), residuals / ATYPICAL) / goal
    return ratios.where(shares <= LARGE, math.inf)


def _promising(first: Quadrature, n: int, most: int, far: float) -> bool:
    """Whether further steps may bring a pair that stands apart and is not far to convergence."""
    ratios, nodes = _unsettled(first, n), first.nodes[0]
    near = (nodes[:, None] - nodes).abs() < APART * resolution(first.nodes)
    coming = (ratios > 1) & (ratios <= far) & (near.sum(1) == 1)
    return bool(coming.any()) and int((ratios <= 1).sum()) < most


def _outliers(first: Quadrature, n: int, most: int) -> Int[Tensor, " q"]:
    """Which pairs of an iteration have converged and stand apart, the best of them first."""
    ratios, nodes = _unsettled(first, n), first.nodes[0]
    order = ratios.argsort()
    chosen = order[ratios[order] <= 1][:most]
    others = torch.ones_like(nodes, dtype=torch.bool)
    others[chosen] = False
    apart = (nodes[chosen, None] - nodes[others]).abs() > 2 * NEAR * resolution(first.nodes)
    return chosen[apart.all(1)]


def _seen_again(values: Float[Tensor, " q"], rows: list[Quadrature], n: int, near: float) -> bool:
    """Whether other probes see more at the outliers: copies, of which a first one sees none.

    Of a multiple eigenvalue it finds the part of itself that is in the eigenspace.
    """
    for row in rows:
        there = ((row.nodes[:, :, None] - values).abs() <= near).any(2)
        if (there & (n * row.weights >= SEEN)).any():
            return True
    return False


def _rest(first: Quadrature, outliers: Int[Tensor, " q"], steps: int) -> Quadrature:
    """What so many steps beside the outliers would give from the probe that has found them."""
    if first.nodes.shape[1] == steps:
        return replace(first, matvecs=0)
    others = torch.ones_like(first.nodes[0], dtype=torch.bool)
    others[outliers] = False
    A, share = Dense(torch.diag(first.nodes[0, others])), first.weights[0, others].sqrt()
    return replace(quadrature(A, share[:, None], steps, keep=True)[0], matvecs=0)


def _beside(values: Tensor, n: int, rest: Sampled) -> Sampled:
    """Eigenvalues that are counted, and what probes see beside them."""
    q = len(values)
    outliers = values.double().cpu().expand(len(rest.nodes), q)
    return replace(
        rest,
        nodes=torch.cat([outliers, rest.nodes], 1),
        weights=torch.cat([torch.full_like(outliers, 1 / n), rest.weights * (1 - q / n)], 1),
        outliers=q,
    )


def _joined(rows: list[Quadrature], kept: bool, spent: int = 0) -> Sampled:
    nodes, weights = torch.cat([row.nodes for row in rows]), torch.cat([r.weights for r in rows])
    return Sampled(nodes, weights, 0, kept, spent + sum(row.matvecs for row in rows))


def resolution(nodes: Float[Tensor, "r m"]) -> float:
    """The range of the nodes divided by their number; where they are the same, 1 % of them."""
    low, high = nodes.min().item(), nodes.max().item()
    size = max(abs(low), abs(high))
    if high - low > 1e-5 * size:
        return (high - low) / nodes.shape[1]
    return 0.01 * size or 1.0
