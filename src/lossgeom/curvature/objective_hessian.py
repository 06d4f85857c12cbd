"""The Hessian of what is optimised, weight decay included."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import SGD, Adam, Optimizer, RMSprop

from lossgeom.autodiff.memory_budget import MEMORY_BUDGET
from lossgeom.curvature._optimizer_settings import flat
from lossgeom.curvature._parameter_matrix import ProblemMatrix
from lossgeom.curvature.hessian import Hessian
from lossgeom.linalg import plain_arithmetic
from lossgeom.problem import Problem


class ObjectiveHessian(ProblemMatrix):
    r"""The P x P Hessian of the data loss with its L2 penalty.

    .. math:: \nabla^2 \Big( L(\theta) + \tfrac12 \sum_i w_i \theta_i^2 \Big) = H + \mathrm{diag}(w)

    Training with weight decay w minimises this objective and not the data loss, whose Hessian is
    :class:`Hessian`. The decoupled weight decay of AdamW is the gradient of no objective, and is
    refused: it shrinks the parameters between steps on the data loss.

    Cost of a product: as of the Hessian.

    Args:
        problem: the loss and where to take it.
        weight_decay: w, one for all parameters; or the optimiser (``torch.optim.SGD``, ``RMSprop``
            or ``Adam``) that has one for each of its groups.
        memory_budget: bytes to keep between products; 2 GiB.

    Raises:
        TypeError: for another optimiser.
        ValueError: for a negative or decoupled weight decay, or an optimiser that does not update
            all parameters of the problem.
        NonFiniteError: from a product, where the loss is NaN or infinite.

    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> problem = Problem(model, "squared_error", [(torch.ones(1, 1), torch.ones(1, 1))])
    >>> ObjectiveHessian(problem, 0.5).dense()
    tensor([[1.5000]])
    """

    degree = None  # weight decay does not scale with the loss

    def __init__(
        self,
        problem: Problem,
        weight_decay: float | Optimizer,
        *,
        memory_budget: int = MEMORY_BUDGET,
    ) -> None:
        self._hessian = Hessian(problem, memory_budget=memory_budget)
        self.problem = problem
        self.weight_decay = _decay(problem, weight_decay)[:, None]

    def matmat(self, V: Float[Tensor, "P k"]) -> Float[Tensor, "P k"]:
        with plain_arithmetic(self.device):
            return self._hessian.matmat(V) + self.weight_decay * V


def _decay(problem: Problem, weight_decay: float | Optimizer) -> Float[Tensor, " P"]:
    if not isinstance(weight_decay, Optimizer):
        if not weight_decay >= 0:
            raise ValueError(f"expected a weight decay >= 0, got {weight_decay}")
        return torch.full_like(problem.theta, weight_decay)
    name = type(weight_decay).__name__
    decoupled = [group.get("decoupled_weight_decay", False) for group in weight_decay.param_groups]
    if name == "AdamW" or any(decoupled):
        raise ValueError(
            f"{name}'s weight decay is decoupled: it is the gradient of no objective, so there is "
            "no Hessian to take; measure Hessian(problem), that of the data loss"
        )
    if type(weight_decay) not in (SGD, RMSprop, Adam):
        raise TypeError(
            f"expected a number, or torch.optim.SGD, RMSprop or Adam, got {name}, whose weight "
            "decay may mean something else"
        )

    def entry(parameter: Tensor, group: dict[str, Any], state: dict[str, Any]) -> Tensor:  # noqa: ARG001
        return torch.as_tensor(float(group["weight_decay"]))

    return flat(problem, weight_decay, entry)
