"""Points of a model: residuals, loss and products with the Jacobian."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.messages.reprs import short

Loss = Callable[[Tensor], Tensor]


class Point(ABC):
    """The points of R runs: residuals (R, D), or outputs, and products with their Jacobians."""

    z: Float[Tensor, "R D"]

    @abstractmethod
    def pullback(self, u: Float[Tensor, "R D"]) -> Float[Tensor, "R P"]:
        """The product J^T u, run by run."""

    @abstractmethod
    def largest_ntk_eigenvalues(self) -> Float[Tensor, " R"]:
        """Largest eigenvalues of J J^T: of the tangent kernel, for squares of Gauss-Newton."""


@dataclass(frozen=True, eq=False)
class Expansion(Point):
    """A point where the Jacobians are known entry by entry.

    Attributes:
        z: (R, D) residuals.
        J: (R, D, P) Jacobians.

    >>> point = Expansion(torch.zeros(1, 2), torch.tensor([[[3.0, 0.0], [0.0, 4.0]]]))
    >>> point.largest_ntk_eigenvalues().tolist()
    [16.0]
    """

    z: Float[Tensor, "R D"]
    J: Float[Tensor, "R D P"]

    __repr__ = short

    def pullback(self, u: Float[Tensor, "R D"]) -> Float[Tensor, "R P"]:
        return (u[:, None] @ self.J)[:, 0]

    def largest_ntk_eigenvalues(self) -> Float[Tensor, " R"]:
        """Solve the dense eigenproblem of J J^T or J^T J, the smaller; NaN where that overflows."""
        D, P = self.J.shape[1:]
        gram = self.J @ self.J.mT if D <= P else self.J.mT @ self.J
        if min(D, P) == 1:
            return gram.flatten()
        finite = gram.isfinite().all(2).all(1)  # one run that overflows must not end the others
        values: Tensor = torch.linalg.eigvalsh(gram.where(finite[:, None, None], 0))
        return values[:, -1].where(finite, torch.nan)


def squared_error(z: Float[Tensor, "R D"]) -> Float[Tensor, " R"]:
    """Half the squared norm, the loss of second-order regression.

    >>> squared_error(torch.tensor([[3.0, 4.0]])).tolist()
    [12.5]
    """
    return z.square().sum(1) / 2


def slope(loss: Loss, z: Float[Tensor, "R D"]) -> Float[Tensor, "R D"]:
    """The gradient dloss/dz, run by run; z itself for the squared error."""
    if loss is squared_error:
        return z
    gradient: Tensor = torch.func.grad(lambda z: loss(z).sum())(z)
    return gradient
