"""Quadratures of a spectrum from random probes, beside its outliers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.linalg._quadrature import Quadrature, quadrature
from lossgeom.linalg._ritz import EigenPairs
from lossgeom.linalg._sketch import without
from lossgeom.linalg.operator import LinearOperator, MatrixFree
from lossgeom.linalg.probes import BLOCK, draw_signs, groups

WORKING_VECTORS = 6  # of one iteration, besides its basis
PARALLEL = 1e-3  # what orthonormal vectors may have in common by rounding
SEARCH = 0.5  # iterations more than probes, that outliers may cost
CONVERGED = 1e-3  # of the resolution: the residual of an eigenpair that is taken out


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

    def rows(A: LinearOperator, k: int, steps: int, Q: Tensor | None = None) -> list[Quadrature]:
        sizes = groups(k, min(BLOCK, together))
        return [quadrature(A, without(Q, draw_signs(A, j, signs)), steps, kept)[0] for j in sizes]

    if known is not None:
        (values, Q), spent = _checked(A, known), 1
    else:
        first, basis = quadrature(A, draw_signs(A, 1, signs), steps, kept)
        residuals, order = first.residuals[0].sort()
        order = order[residuals <= CONVERGED * resolution(first.nodes)][: steps // 2]
        if not kept or probes * len(order) < (1 - SEARCH) * steps:  # as good as the other probes
            del basis
            return _joined([first, *rows(A, probes - 1, steps)], kept)
        values, Q = first.nodes[0, order], basis[0].T @ first.vectors[0][:, order].to(basis)
        spent = first.matvecs
        del basis
    beside = MatrixFree(
        A.shape, A.dtype, A.device, lambda V: without(Q, A.matmat(V)), lambda: beside
    )
    q = len(values)
    rest = _joined(rows(beside, probes, steps - min(q, steps // 2), Q), kept)
    outliers = values.double().cpu().expand(probes, q)
    return Sampled(
        torch.cat([outliers, rest.nodes], 1),
        torch.cat([torch.full_like(outliers, 1 / n), rest.weights * (1 - q / n)], 1),
        q,
        kept,
        spent + rest.matvecs,
    )


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


def _joined(rows: list[Quadrature], kept: bool) -> Sampled:
    nodes, weights = torch.cat([row.nodes for row in rows]), torch.cat([r.weights for r in rows])
    return Sampled(nodes, weights, 0, kept, sum(row.matvecs for row in rows))


def resolution(nodes: Float[Tensor, "r m"]) -> float:
    """The range of the nodes divided by their number; where they are the same, 1 % of them."""
    low, high = nodes.min().item(), nodes.max().item()
    size = max(abs(low), abs(high))
    if high - low > 1e-5 * size:
        return (high - low) / nodes.shape[1]
    return 0.01 * size or 1.0
