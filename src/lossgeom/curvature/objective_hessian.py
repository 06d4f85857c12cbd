"""The Hessian of what is optimised, weight decay included."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import Optimizer

from lossgeom.curvature._parameter_matrix import ProblemMatrix
from lossgeom.curvature.hessian import Hessian
from lossgeom.curvature.optimizers import (
    Member,
    coupled_decay,
    decoupled_decay,
    flat,
    known_kind,
)
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
        weight_decay: w, one for all parameters, or (P,); or the optimiser (``torch.optim.SGD``,
            ``RMSprop``, ``Adam``, ``NAdam`` or ``Adagrad``) that has one for each of its groups.
            Of an optimiser that maximises, w is taken from the loss: it is added negatively.
        memory_budget: bytes for all that is held, see :class:`lossgeom.Memory`.

    Raises:
        TypeError: for another optimiser.
        ValueError: for a negative or decoupled weight decay, or an optimiser that does not update
            all parameters of the problem, or weight decays of another shape.
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
        weight_decay: float | Float[Tensor, " P"] | Optimizer,
        *,
        memory_budget: int | None = None,
    ) -> None:
        self.made_of = self._hessian = Hessian(problem, memory_budget=memory_budget)
        self.problem = problem
        self.weight_decay = _decay(problem, weight_decay)[:, None]

    def matmat(self, V: Float[Tensor, "P k"]) -> Float[Tensor, "P k"]:
        with plain_arithmetic(self.device):
            return self._hessian.matmat(V) + self.weight_decay * V


def _decay(problem: Problem, weight_decay: float | Tensor | Optimizer) -> Float[Tensor, " P"]:
    if isinstance(weight_decay, Optimizer):
        return flat(problem, [weight_decay], _coupled)
    if isinstance(weight_decay, Tensor):
        if weight_decay.shape != problem.theta.shape:
            here, there = tuple(problem.theta.shape), tuple(weight_decay.shape)
            raise ValueError(f"expected weight decays of shape {here}, got {there}")
        return weight_decay.detach().to(problem.theta)
    if not weight_decay >= 0:
        raise ValueError(f"expected a weight decay >= 0, got {weight_decay}")
    return torch.full_like(problem.theta, weight_decay)


def _coupled(each: Member) -> Tensor:
    name = type(each.optimizer).__name__
    if known_kind(each.optimizer) is None:
        raise TypeError(
            "expected numbers, or torch.optim.SGD, RMSprop, Adam, NAdam or Adagrad, got "
            f"{name}, whose weight decay may mean something else"
        )
    if decoupled_decay(each.optimizer, each.group):
        raise ValueError(
            f"{name}'s weight decay is decoupled: it is the gradient of no objective, so there is "
            "no Hessian to take; measure Hessian(problem), that of the data loss"
        )
    decay = coupled_decay(each.optimizer, each.group)
    return torch.tensor(-decay if each.group["maximize"] else decay, dtype=torch.float64)
