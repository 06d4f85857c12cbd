"""What the Hessian has beyond the Gauss-Newton matrix."""

from __future__ import annotations

from torch import Tensor

from lossgeom.autodiff.loss_at_outputs import LossAtOutputs
from lossgeom.batches import Batch
from lossgeom.curvature._parameter_matrix import GradientDerivative
from lossgeom.problem import Problem


class Residual(GradientDerivative):
    r"""The P x P residual term: the Hessian less the Gauss-Newton matrix.

    .. math:: H - G = \sum_b \sum_j \frac{\partial s_b}{\partial f_j} \nabla^2_\theta f_j
        \Big/ \sum_b n_b

    with the outputs f of batch b and its summed loss s. It vanishes for a model linear in its
    parameters, and where the loss is stationary in the outputs, as at zero training loss. It is
    computed as such, from J^T r with the residual r held fixed, and not as a difference.

    Cost of a product: 1.2 to 2 gradients if all is kept, three if nothing is.

    Args:
        problem: the loss and where to take it.
        memory_budget: bytes for all that is held, see :class:`lossgeom.Memory`.

    Raises:
        NonFiniteError: from a product, where the loss is NaN or infinite.

    Source: MacDonald et al., arXiv:2305.14683, eq. (3), second summand.

    >>> import torch
    >>> from torch import nn
    >>> from lossgeom import Problem
    >>> model = nn.Linear(2, 1)
    >>> Residual(Problem(model, "squared_error", [(torch.ones(3, 2), torch.ones(3, 1))])).dense()
    tensor([[0., 0., 0.],
            [0., 0., 0.],
            [0., 0., 0.]])
    """

    def differentiated(
        self, problem: Problem, theta: Tensor, batch: Batch
    ) -> tuple[Tensor, Tensor, float]:
        outputs = problem.outputs(theta, batch)
        loss = LossAtOutputs.of(problem, outputs, batch)
        return outputs, loss.residual.detach(), loss.count
