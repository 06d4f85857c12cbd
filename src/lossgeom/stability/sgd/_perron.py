"""The spectral radius of a map that keeps positive semi-definite matrices so."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Map = Callable[[Tensor], Tensor]
BASIS = 20  # matrices that are held


def spectral_radius(
    apply: Map, start: Float[Tensor, "r r"], tol: float = 1e-10, restarts: int = 20
) -> tuple[float, Float[Tensor, "r r"]]:
    """The spectral radius and its eigenvector, from a positive definite start.

    By the theorem of Perron, Frobenius, Krein and Rutman it is an eigenvalue, with a positive
    semi-definite eigenvector, to which the start is not orthogonal. Arnoldi iteration, restarted
    with the best vector.

    Raises:
        ArithmeticError: where it does not converge.
    """
    vector = start / start.norm()
    for _ in range(restarts):
        basis, H = [vector], start.new_zeros(BASIS + 1, BASIS)
        for j in range(BASIS):
            image = apply(basis[j])
            for _again in range(2):
                for i, other in enumerate(basis):
                    share = (other * image).sum()
                    H[i, j] += share
                    image = image - share * other
            H[j + 1, j] = image.norm()
            values, weights = torch.linalg.eig(H[: j + 1, : j + 1])
            best = int(values.real.argmax())
            value, weight = float(values[best].real), weights[:, best].real
            weight = weight / weight.norm()
            vector = torch.stack(basis, 2) @ weight
            if float(H[j + 1, j] * weight[-1].abs()) <= tol * abs(value):
                return max(value, 0.0), vector
            basis.append(image / H[j + 1, j])
    raise ArithmeticError(
        f"the growth of second moments is not known: {restarts * BASIS} products give {value:g}, "
        f"to no more than {float(H[BASIS, BASIS - 1] * weight[-1].abs()):.1e}"
    )
