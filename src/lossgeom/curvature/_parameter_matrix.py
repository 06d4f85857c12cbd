"""Symmetric P x P matrices."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from weakref import WeakMethod

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.batches import Batch
from lossgeom.curvature._kept_graphs import MEMORY_BUDGET, KeptGraphs
from lossgeom.linalg import LinearOperator, plain_arithmetic
from lossgeom.network import check_differentiable_again
from lossgeom.problem import Problem

Product = Callable[[Tensor], Tensor]


class OnProblem(LinearOperator):
    """A matrix in the dtype and on the device of the parameters of ``self.problem``."""

    problem: Problem

    @property
    def dtype(self) -> torch.dtype:
        return self.problem.theta.dtype

    @property
    def device(self) -> torch.device:
        return self.problem.theta.device


class OnParameters(OnProblem):
    """A symmetric matrix with a row and a column for each parameter of ``self.problem``."""

    @property
    def shape(self) -> tuple[int, int]:
        P = self.problem.theta.numel()
        return P, P

    @property
    def T(self) -> LinearOperator:  # noqa: N802
        return self


class ParameterMatrix(OnParameters):
    """The matrix sum_b A_b / sum_b n_b, from a function that gives A_b's product and n_b.

    Args:
        problem: the loss and where to take it.
        memory_budget: bytes of saved tensors to keep between products; 2 GiB.
    """

    def __init__(self, problem: Problem, *, memory_budget: int = MEMORY_BUDGET) -> None:
        linearize = WeakMethod(self.linearize)  # graphs that held the matrix would outlive it
        self._graphs = KeptGraphs(problem, lambda *at: linearize()(*at), memory_budget)  # type: ignore[misc]
        self.problem = problem

    @abstractmethod
    def linearize(self, theta: Tensor, batch: Batch) -> tuple[Product, float]:
        """The product with one batch's summed matrix at theta, and its number of terms."""

    def matmat(self, V: Float[Tensor, "P k"]) -> Float[Tensor, "P k"]:
        with plain_arithmetic(self.device):
            V = V.clone() if V.is_inference() else V.detach()
            total = torch.zeros_like(V)

            def accumulate(product: Product) -> None:
                for column in range(V.shape[1]):
                    total[:, column] += product(V[:, column])

            self._graphs.over_batches(accumulate)
            return total / self._graphs.divisor


def derivative_product(gradient: Tensor, theta: Tensor) -> Product:
    """The product with the derivative in theta of a gradient that has a graph."""
    check_differentiable_again(gradient)

    def product(v: Tensor) -> Tensor:
        if not gradient.requires_grad:  # it does not depend on theta
            return torch.zeros_like(v)
        (result,) = torch.autograd.grad(
            gradient, theta, v, retain_graph=True, materialize_grads=True
        )
        return result

    return product
