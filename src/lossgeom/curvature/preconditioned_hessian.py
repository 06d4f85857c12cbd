"""The Hessian as an adaptive optimiser sees it."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from lossgeom.autodiff.memory_budget import MEMORY_BUDGET
from lossgeom.curvature._optimizer_settings import flat
from lossgeom.curvature._parameter_matrix import ProblemMatrix
from lossgeom.curvature.hessian import Hessian
from lossgeom.linalg import LinearOperator, plain_arithmetic
from lossgeom.problem import Problem


class PreconditionedHessian(ProblemMatrix):
    r"""The P x P Hessian in the coordinates in which an optimiser's step is a gradient step.

    .. math:: P^{-1/2} H P^{-1/2}, \qquad \theta \leftarrow \theta - P^{-1} m

    with the diagonal P of :func:`preconditioner`, which contains the learning rates of the
    parameter groups. Its eigenvalues have no unit. Its largest is the effective sharpness: without
    momentum and with P held fixed, steps stop being stable where it exceeds 2; with heavy-ball
    momentum b where it exceeds 2 (1 + b), and for Adam's averaged gradient
    2 (1 + b1) / (1 - b1).

    Args:
        problem: the loss and where to take it; its model is the one that the optimiser updates.
        optimizer: a live ``torch.optim.SGD``, ``RMSprop``, ``Adam`` or ``AdamW``; its state is read
            once, now.
        hessian: the matrix to see in these coordinates: ``Hessian(problem)``, unless given, such as
            an :class:`ObjectiveHessian`.
        memory_budget: bytes to keep between products; 2 GiB.

    Cost of a product: as of the Hessian.

    Raises:
        TypeError, ValueError: as :func:`preconditioner`.
        NonFiniteError: from a product, where the loss is NaN or infinite.

    Source: Cohen et al., Adaptive gradient methods at the edge of stability, arXiv:2207.14484;
    Cohen et al., Understanding optimization in deep learning with central flows, arXiv:2410.24206.

    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> problem = Problem(model, "squared_error", [(torch.ones(1, 1), torch.ones(1, 1))])
    >>> PreconditionedHessian(problem, SGD(model.parameters(), lr=0.25)).dense()
    tensor([[0.2500]])
    """

    def __init__(
        self,
        problem: Problem,
        optimizer: Optimizer,
        *,
        hessian: LinearOperator | None = None,
        memory_budget: int = MEMORY_BUDGET,
    ) -> None:
        self._hessian = hessian or Hessian(problem, memory_budget=memory_budget)
        self.problem = problem
        if self._hessian.shape != self.shape:
            raise ValueError(
                f"expected a hessian of shape {self.shape}, got one of shape {self._hessian.shape}"
            )
        self.scaling = preconditioner(problem, optimizer).rsqrt()[:, None]

    def matmat(self, V: Float[Tensor, "P k"]) -> Float[Tensor, "P k"]:
        with plain_arithmetic(self.device):
            return self.scaling * self._hessian.matmat(self.scaling * V)


def preconditioner(problem: Problem, optimizer: Optimizer) -> Float[Tensor, " P"]:
    r"""The diagonal P of the last step :math:`\theta \leftarrow \theta - P^{-1} m` of an optimiser.

    ====================  ==================================================================
    SGD                   :math:`1 / \eta`
    RMSprop               :math:`(\sqrt v + \epsilon) / \eta`, less the squared mean in the
                          root if centered
    Adam, AdamW           :math:`(1 - \beta_1^t) (\sqrt{v / (1 - \beta_2^t)} + \epsilon) / \eta`,
                          with the largest v so far for amsgrad
    ====================  ==================================================================

    with the learning rate :math:`\eta` of each parameter's group, as it is now, and the averaged
    squared gradient v. The averaged gradient m is what momentum makes of the gradients.

    Raises:
        TypeError: for any other optimiser.
        ValueError: if it does not update all parameters of the problem, has taken no step yet, has
            a learning rate of 0, or the model has been trained since the problem was made.

    Source: Cohen et al., arXiv:2207.14484, section 2.

    >>> model = torch.nn.Linear(2, 1)
    >>> problem = Problem(model, "squared_error", [(torch.ones(1, 2), torch.ones(1, 1))])
    >>> groups = [{"params": [model.weight], "lr": 0.5}, {"params": [model.bias], "lr": 0.25}]
    >>> preconditioner(problem, SGD(groups))
    tensor([2., 2., 4.])
    """
    of = {SGD: _sgd, RMSprop: _rmsprop, Adam: _adam, AdamW: _adam}.get(type(optimizer))
    if of is None:
        raise TypeError(
            "expected an optimiser whose preconditioner is known (torch.optim.SGD, RMSprop, Adam, "
            f"AdamW), got {type(optimizer).__name__}"
        )

    def entry(parameter: Tensor, group: dict[str, Any], state: dict[str, Any]) -> Tensor:
        lr = torch.as_tensor(group["lr"], dtype=torch.float64)
        if not lr > 0:
            raise ValueError(f"expected learning rates > 0, got {float(lr)}")
        if of is not _sgd and "step" not in state:
            raise ValueError(
                f"{type(optimizer).__name__} has no squared gradients for some parameter before "
                "its first step with a gradient; take one, or load its state"
            )
        return of(parameter.detach().double(), group, state).cpu() / lr.cpu()

    diagonal = flat(problem, optimizer, entry)
    now = flat(problem, optimizer, lambda parameter, group, state: parameter)  # noqa: ARG005
    if not torch.equal(now, problem.theta):
        raise ValueError(
            "the problem holds other parameters than the model has now, and the state of the "
            "optimiser belongs to those; use problem.refreshed()"
        )
    return diagonal


def _sgd(parameter: Tensor, group: dict[str, Any], state: dict[str, Any]) -> Tensor:  # noqa: ARG001
    return torch.ones_like(parameter)


def _rmsprop(parameter: Tensor, group: dict[str, Any], state: dict[str, Any]) -> Tensor:  # noqa: ARG001
    v: Tensor = state["square_avg"].double()
    if group["centered"]:
        v = v - state["grad_avg"].double().square()
    return v.sqrt() + float(group["eps"])


def _adam(parameter: Tensor, group: dict[str, Any], state: dict[str, Any]) -> Tensor:  # noqa: ARG001
    v: Tensor = state["max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"].double()
    step = float(state["step"])
    beta1, beta2 = float(group["betas"][0]), float(group["betas"][1])
    root: Tensor = (v / (1 - beta2**step)).sqrt()
    shifted: Tensor = root + float(group["eps"])
    return shifted * float(1 - beta1**step)
