"""The range of a matrix as random products see it, and whether to take it out."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.linalg.arithmetic import dots
from lossgeom.linalg.operator import LinearOperator
from lossgeom.linalg.probes import draw_signs, multiply

SHARE = 5  # one product in so many is for the sketch
FEWEST = 3  # vectors in a sketch that are worth one


def range_to_take_out(
    A: LinearOperator,
    matvecs: int,
    generator: torch.Generator,
    samples: Callable[[Tensor, Tensor], Tensor],
) -> tuple[Float[Tensor, "m q"] | None, int]:
    """Return a basis of the range of A where to take it out pays, and the products left for probes.

    A share of the products goes into a sketch Y = A S with random signs S. What each of its columns
    adds to the span of all the others is distributed as (I - P) A s with s independent of the
    projection P, so it says what a deflated probe would be like, before a product has been spent
    on one. Deflation costs as many products again, and pays if the variance falls by more.

    Args:
        A: m x n matrix.
        matvecs: products to spend.
        generator: of signs.
        samples: from S and products to (..., k) numbers whose variance counts.
    """
    k = min(matvecs // SHARE, A.shape[0])
    if k < FEWEST:
        return None, matvecs
    S = draw_signs(A, k, generator)
    Y = multiply(A, S)
    if not Y.isfinite().all():
        return None, matvecs
    size = Y.abs().max().clamp(min=torch.finfo(Y.dtype).tiny)
    Q, R = torch.linalg.qr(Y / size)
    products = Y, _outside(Q, R) * size
    plain, deflated = (samples(S, V).double().var(-1).sum().item() for V in products)
    if deflated / (matvecs - 2 * k) < plain / (matvecs - k):
        return Q, matvecs - 2 * k
    return None, matvecs - k


def _outside(Q: Float[Tensor, "m k"], R: Float[Tensor, "k k"]) -> Float[Tensor, "m k"]:
    """Each column of Q R without its part in the span of the others (Epperly et al., XTrace)."""
    eye = torch.eye(len(R), dtype=torch.float64, device=R.device)
    duals = torch.linalg.solve_triangular(R.double(), eye, upper=True).T
    duals = duals / duals.square().sum(0)  # infinite where a column depends on the others
    outside: Tensor = Q @ duals.nan_to_num(0, 0, 0).to(Q.dtype)
    return outside


def without(Q: Float[Tensor, "m q"] | None, V: Float[Tensor, "m j"]) -> Float[Tensor, "m j"]:
    """Take the span of Q out of V: (I - Q Q^T) V."""
    return V if Q is None else V - Q @ dots(Q.T, V.T).to(V)
