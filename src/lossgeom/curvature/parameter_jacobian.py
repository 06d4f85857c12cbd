"""The Jacobian of the outputs on all data in the parameters."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from lossgeom.autodiff.batch_jacobian import BatchJacobian
from lossgeom.batches import Batch
from lossgeom.curvature._kept_jacobians import Jacobians
from lossgeom.curvature._parameter_matrix import ProblemMatrix, output_sizes
from lossgeom.linalg import LinearOperator, MatrixFree
from lossgeom.linalg.memory import MEMORY_BUDGET
from lossgeom.problem import Problem


class ParameterJacobian(ProblemMatrix):
    r"""The derivative of all outputs in the parameters, an NC x P matrix.

    .. math:: J_{(i, c), p} = \partial f_c(x_i; \theta) / \partial \theta_p

    Its rows are the outputs in the order of the data, each example's flattened: N examples with C
    outputs each, C being the sequence length times the classes for a language model. Nothing is
    normalised.

    Cost of a product: about one gradient with kept graphs for ``J @ v`` and for ``J.T @ u``, three
    and two without; the shape takes one forward pass. ``dense()`` takes min(NC, P) products.

    Args:
        problem: the model, the data, and where to take it; its loss plays no part.
        memory_budget: bytes to keep between products; 2 GiB.

    Source: MacDonald et al., arXiv:2305.14683, section 3 (their DF).

    >>> import torch
    >>> from torch import nn
    >>> model = nn.Linear(2, 1, bias=False)
    >>> data = [(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.zeros(2, 1))]
    >>> ParameterJacobian(Problem(model, "squared_error", data)).dense()
    tensor([[1., 2.],
            [3., 4.]])
    """

    rows = "outputs"
    degree = 0.0

    def __init__(self, problem: Problem, *, memory_budget: int = MEMORY_BUDGET) -> None:
        def jacobian(theta: Tensor, batch: Batch) -> BatchJacobian:
            return BatchJacobian(problem.outputs(theta, batch), theta, by_rows=True)

        self.problem = problem
        self._jacobians = Jacobians(problem, jacobian, memory_budget, rows_will_do=True)

    @property
    def T(self) -> LinearOperator:  # noqa: N802
        return MatrixFree.like(self, self.rmatmat, lambda: self, size=self.shape[::-1])

    def matmat(self, V: Float[Tensor, "P k"]) -> Float[Tensor, "NC k"]:
        return self._jacobians.push_rows(V)

    def rmatmat(self, U: Float[Tensor, "NC k"]) -> Float[Tensor, "P k"]:
        """The product of the transpose with a block of k vectors."""
        return self._jacobians.pull_rows(U, output_sizes(self.problem), self.shape[1])
