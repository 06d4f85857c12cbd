"""Norms of Jacobians from all their rows."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.autodiff.linearized import Linearized
from lossgeom.problem import NonFiniteError

SAFE = (1e-20, 1e30)  # squares of rows, of which none that matters vanished or overflowed
ROWS = 32  # at a time where they need not be together


def spectral(point: Linearized) -> Float[Tensor, " B"]:
    """The largest singular values."""
    return from_gram(*gram(all_rows(point))) * point.unit


def frobenius(point: Linearized) -> Float[Tensor, " B"]:
    """The Frobenius norms, a few rows at a time."""
    starts = range(0, point.C, ROWS)
    blocks = (checked(point.rows(i, min(i + ROWS, point.C))) for i in starts)
    norms = torch.stack([row_norm(block) for block in blocks])
    total: Tensor = torch.linalg.vector_norm(norms, dim=0)
    return total * point.unit


def row_norm(rows: Float[Tensor, "B k D"]) -> Float[Tensor, " B"]:
    """The Frobenius norm of the rows of each example."""
    norms: Tensor = torch.linalg.vector_norm(rows, dim=(1, 2), dtype=torch.float64)
    return norms


def all_rows(point: Linearized) -> Float[Tensor, "B C D"]:
    """The Jacobians, which need not be finite."""
    return point.rows(0, point.C)


def checked(rows: Tensor) -> Tensor:
    """Return rows, or products with them, if they are finite."""
    if not rows.isfinite().all():
        raise NonFiniteError("the Jacobian of the model is NaN or infinite at these parameters")
    return rows


def gram(rows: Float[Tensor, "B C D"]) -> tuple[Float[Tensor, "B n n"], Float[Tensor, " B"]]:
    """J J^T or J^T J, the smaller, of every example over the square of a scale, and the scale."""
    if rows.shape[1] > rows.shape[2]:
        rows = rows.mT
    G = rows @ rows.mT
    squares = G.diagonal(dim1=1, dim2=2).amax(1)
    if ((squares > SAFE[0]) & (squares < SAFE[1])).all():
        return G.double(), torch.ones_like(squares, dtype=torch.float64)
    largest = torch.linalg.vector_norm(checked(rows), torch.inf, dim=(1, 2), keepdim=True)
    scale = torch.where(largest > 0, largest, 1)
    rows = rows / scale
    return (rows @ rows.mT).double(), scale.flatten().double()


def from_gram(G: Float[Tensor, "B n n"], scale: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """The largest singular values from Gram matrices."""
    largest: Tensor = torch.linalg.eigvalsh(G)[:, -1]
    return largest.clamp(min=0).sqrt() * scale


def gram_bound(G: Float[Tensor, "B n n"], scale: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """An upper bound of the same, without eigenvalues: by the Frobenius and the maximum norm."""
    squares = torch.linalg.vector_norm(G, dim=(1, 2))
    sums = G.abs().sum(2).amax(1)
    return torch.minimum(squares, sums).sqrt() * scale
