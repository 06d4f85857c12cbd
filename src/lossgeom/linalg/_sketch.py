"""The range of a matrix as random products see it, and whether to take it out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.linalg.operator import LinearOperator
from lossgeom.linalg.probes import draw_signs, multiply

SHARE = 5  # one product in so many is for the sketch
FEWEST = 3  # vectors in a sketch that are worth one


@dataclass(frozen=True)
class Sketch:
    """Products Y = A S with random signs, and an orthonormal basis Q of them.

    ``outside`` holds what each product adds to the span of all the others. A column of it is
    distributed as (I - P) A s with s independent of the projection P, so it says what a deflated
    probe would be like, before a product has been spent on one.
    """

    S: Float[Tensor, "n k"]
    Y: Float[Tensor, "m k"]
    Q: Float[Tensor, "m k"]
    outside: Float[Tensor, "m k"]

    def project_out(self, V: Float[Tensor, "m j"]) -> Float[Tensor, "m j"]:
        """(I - Q Q^T) V."""
        return V - self.Q @ (self.Q.T @ V)


def sketch(A: LinearOperator, matvecs: int, generator: torch.Generator) -> Sketch | None:
    """From a share of the products; ``None`` where these are too few, or not finite."""
    k = min(matvecs // SHARE, A.shape[0])
    if k < FEWEST:
        return None
    S = draw_signs(A, k, generator)
    Y = multiply(A, S)
    if not Y.isfinite().all():
        return None
    size = Y.abs().max().clamp(min=torch.finfo(Y.dtype).tiny)
    Q, R = torch.linalg.qr(Y / size)
    return Sketch(S, Y, Q, _outside(Q, R) * size)


def _outside(Q: Float[Tensor, "m k"], R: Float[Tensor, "k k"]) -> Float[Tensor, "m k"]:
    """Each column of Q R without its part in the span of the others (Epperly et al., XTrace)."""
    eye = torch.eye(len(R), dtype=torch.float64, device=R.device)
    duals = torch.linalg.solve_triangular(R.double(), eye, upper=True).T
    duals = duals / duals.square().sum(0)  # infinite where a column depends on the others
    outside: Tensor = Q @ duals.nan_to_num(0, 0, 0).to(Q.dtype)
    return outside


def pays(plain: Float[Tensor, "r k"], deflated: Float[Tensor, "r k"], matvecs: int) -> bool:
    """Whether the variance falls by more than the products that deflation costs."""
    k = plain.shape[1]
    variance = plain.double().var(1).sum(), deflated.double().var(1).sum()
    return bool(variance[1] / (matvecs - 2 * k) < variance[0] / (matvecs - k))
