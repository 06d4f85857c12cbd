"""Models that are known as a function only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.linalg import MatrixFree, top_eigenpairs
from lossgeom.messages.reprs import short
from lossgeom.quadratic._checks import check_tensor
from lossgeom.quadratic.model import Model
from lossgeom.quadratic.point import Point
from lossgeom.quadratic.second_derivative import Rows


@dataclass(frozen=True, eq=False)
class ImplicitModel(Model):
    r"""A model that is a function and nothing else; no Jacobian is ever formed.

    Descent in the parameters and gradient flow take it. It need not be quadratic. Products are by
    reverse mode; an eigenvalue takes both modes, by Lanczos iteration to a residual of 1e-6.

    Attributes:
        residuals: from (R, P) to (R, D), row by row the same differentiable function.
        start: (R, P), parameters whose rows say how many runs there are, in which dtype and where;
            they count as zero, so that ``residuals`` is called with ``start + theta``.

    >>> model = ImplicitModel(lambda theta: theta.square().sum(1, keepdim=True), torch.zeros(1, 2))
    >>> point = model.at(torch.tensor([[1.0, 2.0]]))
    >>> point.z.tolist(), point.pullback(torch.ones(1, 1)).tolist()
    ([[5.0]], [[2.0, 4.0]])
    """

    residuals: Callable[[Tensor], Tensor]
    start: Float[Tensor, "R P"]

    __repr__ = short

    def __post_init__(self) -> None:
        check_tensor("start", self.start, (None, None), "(R, P)")

    @property
    def runs(self) -> int:
        return len(self.start)

    @property
    def bytes_per_run(self) -> int:
        return 4 * self.start.shape[1] * self.start.itemsize

    @property
    def origin(self) -> Float[Tensor, "R P"]:
        return torch.zeros_like(self.start)

    def rows(self, index: Rows) -> ImplicitModel:
        return ImplicitModel(self.residuals, self.start[index])

    def at(self, theta: Float[Tensor, "R P"]) -> Point:
        return _ImplicitPoint(self.residuals, self.start + theta)


class _ImplicitPoint(Point):
    """A point of a function that autograd linearises."""

    def __init__(self, residuals: Callable[[Tensor], Tensor], theta: Float[Tensor, "R P"]) -> None:
        self.residuals, self.theta = residuals, theta
        linearised: Any = torch.func.vjp(residuals, theta)
        self.z, self._pull = linearised
        if self.z.ndim != 2 or len(self.z) != len(theta):
            raise ValueError(
                f"expected residuals of shape (R, D) with R = {len(theta)}, got "
                f"{tuple(self.z.shape)}"
            )

    def pullback(self, u: Float[Tensor, "R D"]) -> Float[Tensor, "R P"]:
        pulled: Tensor = self._pull(u)[0]
        return pulled

    def largest_ntk_eigenvalues(self) -> Float[Tensor, " R"]:
        return torch.stack([self._largest(i) for i in range(len(self.theta))])

    def _largest(self, run: int) -> Float[Tensor, ""]:
        """The largest eigenvalue of J J^T of a run, by Lanczos iteration."""
        D = self.z.shape[1]

        def product(U: Float[Tensor, "D k"]) -> Float[Tensor, "D k"]:
            theta = self.theta[run].expand(U.shape[1], -1)  # so many runs at the same point
            pulled = _ImplicitPoint(self.residuals, theta).pullback(U.T)
            pushed: Tensor = torch.func.jvp(self.residuals, (theta,), (pulled,))[1]
            return pushed.T

        A = MatrixFree((D, D), self.z.dtype, self.z.device, product, lambda: A)
        return top_eigenpairs(A, tol=1e-6).values[0]
