"""What a step of SGD does to second moments."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.linalg import MatrixFree, top_eigenpairs
from lossgeom.stability.sgd.examples import ExampleCurvatures

Map = Callable[[Float[Tensor, "r r"]], Float[Tensor, "r r"]]

TOL = 1e-6  # of the residual, relative to the eigenvalue, whose error is of second order in it
NOTHING = 1e-12  # an eigenvalue that is rounding


def mean_of_products(
    curvatures: ExampleCurvatures, S: Float[Tensor, "r r"]
) -> Float[Tensor, "r r"]:
    """The mean of H_i S H_i over the examples; 4 n c r^2 flops, and 4 n c^2 r where c > 1."""
    n, c, r = curvatures.factors.shape
    A = curvatures.factors.reshape(n * c, r)
    images = A @ S
    if c == 1:
        inner = (images * A).sum(1, keepdim=True)
        return A.T @ (inner * A) / n
    inner = images.reshape(n, c, r) @ curvatures.factors.mT
    return A.T @ (inner @ curvatures.factors).reshape(n * c, r) / n


def on_moments(curvatures: ExampleCurvatures, image: Map) -> MatrixFree:
    """A symmetric map of r x r matrices as one of vectors of their entries."""
    h, r = curvatures.values, curvatures.rank

    def product(V: Float[Tensor, "rr k"]) -> Float[Tensor, "rr k"]:
        return torch.stack([image(v.reshape(r, r)).reshape(-1) for v in V.T], 1)

    A = MatrixFree((r * r, r * r), h.dtype, h.device, product, lambda: A)
    return A


def largest_growth(
    curvatures: ExampleCurvatures, image: Map, start: Float[Tensor, " rr"] | None = None
) -> tuple[float, Float[Tensor, " rr"]]:
    """The largest eigenvalue of a map that keeps matrices positive semi-definite, with its matrix.

    The search starts from the identity, to which no such matrix is orthogonal, and from a matrix
    that is known of a map nearby.

    Raises:
        ArithmeticError: if the search does not converge.
    """
    identity = torch.eye(curvatures.rank).to(curvatures.values).reshape(-1)
    identity = identity / identity.norm()
    if start is not None:
        identity = identity + start * torch.sign(start @ identity)
    pairs = top_eigenpairs(on_moments(curvatures, image), start=identity, tol=TOL, verify=False)
    value = max(float(pairs.values[0]), 0.0)
    if value > NOTHING and not bool(pairs.converged[0]):
        raise ArithmeticError(
            f"the growth of second moments is known to {float(pairs.residuals[0]):.1e} only, after "
            f"{pairs.matvecs} products; are there numbers of very different sizes in the "
            "curvatures of the examples?"
        )
    return value, pairs.vectors[:, 0]
