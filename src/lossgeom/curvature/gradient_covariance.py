"""Covariance of the gradients of observations."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.batches import Batch
from lossgeom.curvature._parameter_matrix import ProblemMatrix
from lossgeom.curvature.empirical_fisher import EmpiricalFisher
from lossgeom.linalg import plain_arithmetic
from lossgeom.problem import Problem


class GradientCovariance(ProblemMatrix):
    r"""The P x P covariance of the gradient of one observation, drawn at random from the data.

    .. math:: \Sigma = \frac{1}{M} \sum_{o=1}^M (g_o - \nabla L)(g_o - \nabla L)^\top, \quad
        \frac{1}{M} \sum_o g_o = \nabla L

    over the M observations: the targets of a cross-entropy that have a weight (ignored ones and
    those of a class of weight 0 have none), the examples of any other loss. Each :math:`g_o` is
    M / n times the gradient of the observation's terms, n being what the loss divides by, so that
    their mean is the gradient of the loss. A mini-batch of B
    observations, drawn with replacement, has a gradient with covariance :math:`\Sigma / B`.

    It is the empirical Fisher matrix times M / n, less the square of the gradient, and computed so:
    where the gradients hardly differ, digits cancel.

    Cost of a product: as of :class:`EmpiricalFisher`; one gradient and one forward pass before.

    Args:
        problem: the loss and where to take it.
        memory_budget: bytes for all that is held, see :class:`lossgeom.Memory`.

    Raises:
        ValueError: from a product, if the loss of one example depends on the outputs of others.
        NonFiniteError: from a product, where the loss is NaN or infinite.

    >>> from torch import nn
    >>> model = nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.zeros_(model.weight)
    >>> data = [(torch.ones(2, 1), torch.tensor([[1.0], [3.0]]))]
    >>> GradientCovariance(Problem(model, "squared_error", data)).dense()
    tensor([[1.]])
    """

    degree = 2.0

    def __init__(self, problem: Problem, *, memory_budget: int | None = None) -> None:
        self._second_moment = EmpiricalFisher(problem, memory_budget=memory_budget)
        self.problem, self.made_of = problem, self._second_moment

    def matmat(self, V: Float[Tensor, "P k"]) -> Float[Tensor, "P k"]:
        scale = self.problem.cached(_observations_per_term)
        gradient = self.problem.cached(Problem.gradient)
        with plain_arithmetic(self.device):
            return scale * self._second_moment.matmat(V) - gradient[:, None] * (gradient @ V)


def _observations_per_term(problem: Problem) -> float:
    likelihood = problem.criterion.likelihood

    @torch.no_grad()
    def counts(batch: Batch) -> tuple[float, float]:
        outputs = problem.outputs(problem.theta, batch)
        _, terms = problem.terms(outputs, batch)
        if likelihood is None:
            return len(outputs), terms
        return float((likelihood.weights(outputs, batch) != 0).any(1).sum()), terms

    return problem.mean(counts)
