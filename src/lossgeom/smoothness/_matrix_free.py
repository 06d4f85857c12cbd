"""Norms of Jacobians from a few products with each, for all examples at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int8
from torch import Tensor

from lossgeom.autodiff.batch_jacobian import BatchJacobian
from lossgeom.autodiff.linearized import Linearized
from lossgeom.smoothness.exact import checked
from lossgeom.smoothness.norms import JacobianNorms

Apply = Callable[[Tensor], Tensor]
SETTLED = 0.01  # of the residual that is asked for
ROUNDING = 100.0  # units in the last place that a residual may be off by


def lanczos(
    point: Linearized, start: Float[Tensor, " n"], tol: float, max_steps: int
) -> JacobianNorms:
    """The largest singular values, from J J^T for a start of C numbers and J^T J for one of D."""
    jacobian = BatchJacobian(point.outputs, point.leaf)

    def push(v: Tensor) -> Tensor:
        try:
            return point.scaled(jacobian.push(v.reshape(point.leaf.shape)))
        except ValueError as error:
            raise ValueError(
                f"{error}. Lanczos iteration multiplies by the Jacobian, which takes them; "
                'method="exact" does not'
            ) from error

    there, back = (point.pull, push) if len(start) == point.C else (push, point.pull)
    first = (start / start.norm()).to(point.outputs).expand(len(point), -1)
    # of the size of J, so that J J^T neither vanishes nor overflows
    size = torch.linalg.vector_norm(checked(there(first)), dim=1, keepdim=True, dtype=torch.float64)
    size = torch.where(size > 0, size, 1).to(first)
    largest, converged = _top_eigenvalues(
        lambda x: checked(back(there(x) / size) / size), first, tol, max_steps
    )
    values = largest.sqrt() * size[:, 0].double() * point.unit
    return JacobianNorms(values, None, converged, "lanczos")


def _top_eigenvalues(
    apply: Apply, start: Float[Tensor, "B n"], tol: float, max_steps: int
) -> tuple[Float[Tensor, " B"], Tensor]:
    """Rayleigh-Ritz on bases that grow by their own residuals, until these are small enough.

    The images of the bases are kept, so that residuals are those of products that were taken. An
    example that has settled grows no more, so its value does not depend on the others.
    """
    # a second largest value that is mistaken for the largest shows in a step or two more
    rounding = ROUNDING * torch.finfo(start.dtype).eps
    enough = min(2 * tol, max(2 * tol * SETTLED, rounding))
    V, W = start[:, None], apply(start)[:, None]
    T = (V @ W.mT).double()
    while True:
        values, vectors = torch.linalg.eigh(T)
        largest, weights = values[:, -1].clamp(min=0), vectors[:, None, :, -1].to(V)
        residual = (weights @ W - largest[:, None, None].to(V) * (weights @ V))[:, 0]
        length = torch.linalg.vector_norm(residual, dim=1, dtype=torch.float64)
        settled = length <= enough * largest
        if settled.all() or V.shape[1] == min(max_steps, start.shape[1]):
            return largest, length <= 2 * tol * largest  # of squares
        fresh = _orthogonal(residual, V) * ~settled[:, None]
        V = torch.cat([V, fresh[:, None]], dim=1)
        W = torch.cat([W, apply(fresh)[:, None]], dim=1)
        T = F.pad(T, (0, 1, 0, 1))
        T[:, -1] = T[:, :, -1] = (V @ W[:, -1, :, None])[:, :, 0].double()


def _orthogonal(x: Float[Tensor, "B n"], V: Float[Tensor, "B m n"]) -> Float[Tensor, "B n"]:
    """The direction of x that is orthogonal to all V; zero where there is none."""
    for _ in range(2):
        x = _unit(x)
        x = x - (V.mT @ (V @ x[:, :, None]))[:, :, 0]
    return _unit(x)


def _unit(x: Float[Tensor, "B n"]) -> Float[Tensor, "B n"]:
    length: Tensor = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return x / length.clamp(min=torch.finfo(x.dtype).tiny)


def hutchinson(point: Linearized, signs: Int8[Tensor, "B k C"]) -> JacobianNorms:
    r"""The Frobenius norms from random signs z, by :math:`E \|J^\top z\|^2 = \|J\|_F^2`."""
    probes = signs.transpose(0, 1).to(point.outputs)
    norms = torch.stack(
        [
            torch.linalg.vector_norm(checked(point.pull(z)), dim=1, dtype=torch.float64)
            for z in probes
        ]
    )
    size = norms.amax(0)
    squares = (norms / torch.where(size > 0, size, 1)).square()
    value = squares.mean(0).sqrt()
    error = squares.std(0) / len(probes) ** 0.5 / (2 * torch.where(value > 0, value, 1))
    unit, converged = size * point.unit, torch.ones_like(value, dtype=torch.bool)
    return JacobianNorms(value * unit, error * unit, converged, "hutchinson")
