"""The Gauss-Newton matrix seen from the outputs."""

from __future__ import annotations

from lossgeom.curvature._kernel import Kernel
from lossgeom.curvature.output_root import OutputRoot
from lossgeom.curvature.parameter_jacobian import ParameterJacobian
from lossgeom.linalg import LinearOperator
from lossgeom.linalg.memory import MEMORY_BUDGET
from lossgeom.problem import Problem


class ConjugateGaussNewton(Kernel):
    r"""The conjugate of the Gauss-Newton matrix, a weighted tangent kernel, NC x NC.

    .. math:: K = C J J^\top C^\top, \qquad C^\top C = \nabla^2_f \gamma, \qquad
        G = J^\top C^\top C J

    with the :class:`ParameterJacobian` J and the :class:`OutputRoot` C, which holds the
    normalisation of the loss. Gauss-Newton matrix and conjugate have the same nonzero eigenvalues,
    so the smaller of the two will do: P x P or NC x NC.

    Cost of a product: about two gradients with kept graphs, five without. ``dense()`` takes
    min(NC, P) products, and memory for NC x P numbers if the budget allows.

    Args:
        problem: the loss and where to take it.
        memory_budget: bytes to keep between products, and of C J in ``dense()``;
            2 GiB.

    Raises:
        ValueError, NonFiniteError: from a product, as :class:`OutputRoot`.

    Source: MacDonald et al., arXiv:2305.14683, eq. (4).

    >>> import torch
    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> data = [(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.zeros(2, 1))]
    >>> ConjugateGaussNewton(Problem(model, "squared_error", data)).dense()
    tensor([[ 2.5000,  5.5000],
            [ 5.5000, 12.5000]])
    """

    def __init__(self, problem: Problem, *, memory_budget: int = MEMORY_BUDGET) -> None:
        self.jacobian = ParameterJacobian(problem, memory_budget=memory_budget)
        self.root = OutputRoot(problem)
        self.problem = problem
        self.memory_budget = memory_budget

    @property
    def factor(self) -> LinearOperator:
        """The product C J."""
        return self.root @ self.jacobian
