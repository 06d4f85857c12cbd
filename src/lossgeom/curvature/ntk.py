"""The empirical neural tangent kernel."""

from __future__ import annotations

from lossgeom.curvature._kernel import Kernel
from lossgeom.curvature.parameter_jacobian import ParameterJacobian
from lossgeom.linalg import LinearOperator
from lossgeom.linalg.memory import MEMORY_BUDGET
from lossgeom.problem import Problem


class NTK(Kernel):
    r"""The empirical neural tangent kernel of all outputs on all data, NC x NC.

    .. math:: K = J J^\top

    with the :class:`ParameterJacobian` J, whose order of rows it has. Nothing is normalised and no
    output is summed over: entry ((i, c), (j, d)) is the inner product of the parameter gradients of
    output c at example i and output d at example j.

    Cost of a product: about two gradients with kept graphs, five without. ``dense()`` takes
    min(NC, P) products with J or its transpose, and memory for NC x P numbers if the budget allows.

    Args:
        problem: the model, the data, and where to take it; its loss plays no part.
        memory_budget: bytes to keep between products, and of J in ``dense()``;
            2 GiB.

    Source: Jacot et al., Neural tangent kernel, arXiv:1806.07572.

    >>> import torch
    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> data = [(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.zeros(2, 1))]
    >>> NTK(Problem(model, "squared_error", data)).dense()
    tensor([[ 5., 11.],
            [11., 25.]])
    """

    degree = 0.0

    def __init__(self, problem: Problem, *, memory_budget: int = MEMORY_BUDGET) -> None:
        self._jacobian = ParameterJacobian(problem, memory_budget=memory_budget)
        self.problem = problem
        self.memory_budget = memory_budget

    @property
    def factor(self) -> LinearOperator:
        """The Jacobian J."""
        return self._jacobian
