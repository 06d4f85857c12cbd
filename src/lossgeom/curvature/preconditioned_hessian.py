"""The Hessian as an adaptive optimiser sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import SGD, Adagrad, Adam, AdamW, NAdam, Optimizer, RMSprop

from lossgeom.curvature._parameter_matrix import ProblemMatrix
from lossgeom.curvature.hessian import Hessian
from lossgeom.curvature.objective_hessian import ObjectiveHessian
from lossgeom.curvature.optimizers import (
    Member,
    NoPreconditionerError,
    coupled_decay,
    decoupled_decay,
    flat,
    has_no_gradients,
    has_stepped,
    known_kind,
    unwrapped_optimizer,
)
from lossgeom.linalg import LinearOperator, plain_arithmetic
from lossgeom.messages.checks import check_number
from lossgeom.problem import Problem, checked_problem


@dataclass(frozen=True, eq=False)
class Preconditioning:
    r"""What optimisers make of a gradient, read once; the same at any point.

    Attributes:
        inverse: :math:`P^{-1} / (1 - \eta w / 2)`, with the decoupled decay w of each parameter's
            group.
        weight_decay: coupled, of each parameter; negative where the loss is maximised.
        sign: -1 where the loss is maximised.
    """

    inverse: Float[Tensor, " P"]
    weight_decay: Float[Tensor, " P"]
    sign: int = 1

    @classmethod
    def of(cls, problem: Problem, *optimizers: Optimizer) -> Preconditioning:
        """Read optimisers, wherever the problem is.

        Raises:
            TypeError, ValueError: as :class:`PreconditionedHessian`.
        """
        signs = {
            -1 if group.get("maximize", False) else 1
            for optimizer in map(unwrapped_optimizer, optimizers)
            for group in optimizer.param_groups
        }
        if len(signs) > 1:
            raise ValueError(
                "expected parameter groups that all minimise or all maximise, got both: steps in "
                "two directions are no descent in any coordinates"
            )
        inverse, sign = flat(problem, optimizers, _shrinking_inverse), signs.pop()
        return cls(inverse, sign * flat(problem, optimizers, _coupled), sign)


class PreconditionedHessian(ProblemMatrix):
    r"""The P x P Hessian in the coordinates in which an optimiser's step is a gradient step.

    .. math:: P^{-1/2} H P^{-1/2}, \qquad \theta \leftarrow \theta - P^{-1} m

    with the diagonal P of :func:`preconditioner`, which contains the learning rates of the
    parameter groups, and the Hessian H of what the optimiser minimises. Its eigenvalues have no
    unit. Its largest is the effective sharpness: with P held fixed, steps stop being stable where
    it exceeds the :func:`lossgeom.stability_threshold` of the optimiser, 2 without momentum.

    All that may differ between parameter groups is in this matrix, so that one threshold is
    enough. Coupled weight decay is in H, which is then an :class:`ObjectiveHessian`. Decoupled
    weight decay w turns P into :math:`P (1 - \eta w / 2)`, since a mode of the step
    :math:`\theta \leftarrow (1 - \eta w) \theta - P^{-1} m` loses its stability at
    :math:`2 - \eta w` in place of 2. For an optimiser that maximises, H is minus the Hessian. A
    parameter that has had no gradient while others have, such as that of a layer which plays no
    part, is one that an adaptive optimiser does not move: its row and column are zero.

    Args:
        problem: the loss and where to take it; its model is the one that the optimisers update.
        optimizers: live ones of ``torch.optim``, ``SGD``, ``RMSprop``, ``Adam``, ``AdamW``,
            ``NAdam`` or ``Adagrad``, also inside those of Accelerate or Lightning; their state is
            read once, now. Or a ``Preconditioning`` that was read before.
        hessian: the matrix to see in these coordinates, in place of the Hessian of the objective.
        memory_budget: bytes for all that is held, see :class:`lossgeom.Memory`.

    Cost of a product: as of the Hessian.

    Raises:
        TypeError: for any other optimiser.
        ValueError: as :func:`preconditioner`, except that a learning rate may be 0; if some groups
            maximise and others do not; or if decoupled decay alone, with :math:`\eta w \geq 2`, is
            unstable.
        NonFiniteError: from a product, where the loss is NaN or infinite.

    Source: Cohen et al., Adaptive gradient methods at the edge of stability, arXiv:2207.14484;
    Cohen et al., Understanding optimization in deep learning with central flows, arXiv:2410.24206.
    With decay: derived here.

    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> problem = Problem(model, "squared_error", [(torch.ones(1, 1), torch.ones(1, 1))])
    >>> PreconditionedHessian(problem, SGD(model.parameters(), lr=0.25)).dense()
    tensor([[0.2500]])
    """

    def __init__(
        self,
        problem: Problem,
        *optimizers: Optimizer | Preconditioning,
        hessian: LinearOperator | None = None,
        memory_budget: int | None = None,
    ) -> None:
        together = checked_problem(problem).ranks.together
        read = together(lambda: _read(problem, *optimizers))
        if hessian is None and read.weight_decay.any():
            hessian = ObjectiveHessian(problem, read.weight_decay, memory_budget=memory_budget)
        self._hessian = hessian or Hessian(problem, memory_budget=memory_budget)
        self.made_of = self._hessian
        self.problem = problem
        if self._hessian.shape != self.shape:
            raise ValueError(
                f"expected a hessian of shape {self.shape}, got one of shape {self._hessian.shape}"
            )
        self.scaling = read.inverse.sqrt()[:, None]
        self._sign = read.sign

    def matmat(self, V: Float[Tensor, "P k"]) -> Float[Tensor, "P k"]:
        with plain_arithmetic(self.device):
            return self._sign * self.scaling * self._hessian.matmat(self.scaling * V)


def _read(problem: Problem, *given: Optimizer | Preconditioning) -> Preconditioning:
    if not given:
        raise TypeError("expected at least one optimiser, got none")
    first, *others = given
    if isinstance(first, Preconditioning) and not others:
        return first
    live = [unwrapped_optimizer(each) for each in given]
    read = Preconditioning.of(problem, *live)
    check_current(problem, *live)
    return read


def preconditioner(problem: Problem, *optimizers: Optimizer) -> Float[Tensor, " P"]:
    r"""The diagonal P of the last step :math:`\theta \leftarrow \theta - P^{-1} m` of an optimiser.

    ====================  ==================================================================
    SGD                   :math:`1 / \eta`
    RMSprop               :math:`(\sqrt v + \epsilon) / \eta`, less the squared mean in the
                          root if centered
    Adam, AdamW           :math:`(1 - \beta_1^t) (\sqrt{v / (1 - \beta_2^t)} + \epsilon) / \eta`,
                          with the largest v so far for amsgrad
    NAdam                 :math:`(\sqrt{v / (1 - \beta_2^t)} + \epsilon) / \eta`
    Adagrad               :math:`(\sqrt v + \epsilon) (1 + (t - 1) \delta) / \eta`, with the sum v
                          of squared gradients and the decay of the learning rate
    ====================  ==================================================================

    with the learning rate :math:`\eta` of each parameter's group, as it is now, and the averaged
    squared gradient v. The averaged gradient m is what momentum makes of the gradients; NAdam's
    contains its two bias corrections. Decoupled weight decay is not part of it.

    Args:
        problem: where the model of the optimisers is now.
        optimizers: live ones of ``torch.optim``, as for :class:`PreconditionedHessian`.

    Raises:
        TypeError: for any other optimiser.
        ValueError: if they do not update all parameters of the problem, have taken no step yet,
            or none with a gradient of some parameter, which P is infinite for; have a learning rate
            of 0, or the model has been trained since the problem was made.

    Source: Cohen et al., arXiv:2207.14484, section 2; torch's own documentation of each.

    >>> model = torch.nn.Linear(2, 1)
    >>> problem = Problem(model, "squared_error", [(torch.ones(1, 2), torch.ones(1, 1))])
    >>> groups = [{"params": [model.weight], "lr": 0.5}, {"params": [model.bias], "lr": 0.25}]
    >>> preconditioner(problem, SGD(groups))
    tensor([2., 2., 4.])
    """
    inverse = flat(problem, optimizers, _inverse)
    if not inverse.all():
        raise ValueError("expected learning rates > 0, got 0, where the preconditioner is infinite")
    check_current(problem, *optimizers)
    return inverse.reciprocal()


def check_current(problem: Problem, *optimizers: Optimizer) -> None:
    """Raise if the model that optimisers update has moved since the problem was made."""
    if not torch.equal(flat(problem, optimizers, lambda each: each.parameter), problem.theta):
        raise ValueError(
            "the problem holds other parameters than the model has now, and the state of the "
            "optimiser belongs to those; use problem.refreshed()"
        )


def _shrinking_inverse(each: Member) -> Tensor:
    """The inverse preconditioner where decoupled decay shrinks the parameters, too."""
    if known_kind(each.optimizer) not in (None, SGD) and has_no_gradients(each):
        return torch.zeros((), dtype=torch.float64)
    shrinking = float(each.group["lr"]) * decoupled_decay(each.optimizer, each.group)
    if not shrinking < 2:
        raise NoPreconditionerError(
            f"expected lr * weight_decay < 2 of decoupled weight decay, got {shrinking}: the decay "
            "alone is unstable"
        )
    return _inverse(each) / (1 - shrinking / 2)


def _coupled(each: Member) -> Tensor:
    return torch.tensor(coupled_decay(each.optimizer, each.group), dtype=torch.float64)


def _inverse(each: Member) -> Tensor:
    """What a parameter's averaged gradient is multiplied by."""
    kind = known_kind(each.optimizer)
    if kind is None:
        raise TypeError(
            "expected an optimiser whose preconditioner is known (torch.optim.SGD, RMSprop, Adam, "
            f"AdamW, NAdam, Adagrad), got {type(each.optimizer).__name__}"
        )
    if kind is not SGD and not has_stepped(each.state):
        raise NoPreconditionerError(
            f"{type(each.optimizer).__name__} has no squared gradients for some parameter before "
            "its first step with a gradient; take one, or load its state. One that plays no part "
            "in the loss never has any: leave it out with Problem(..., parameters=...)"
        )
    lr = float(each.group["lr"])
    check_number("lr", lr, 0, at_low=True)
    return lr / ROOTS[kind](each)


def _rms(each: Member) -> Tensor:
    v = _wide(each, "square_avg")
    if each.group["centered"]:
        v = v - _wide(each, "grad_avg").square()
    return v.sqrt() + float(each.group["eps"])


def _adam(each: Member) -> Tensor:
    key = "max_exp_avg_sq" if each.group["amsgrad"] else "exp_avg_sq"
    remembered: float = float(each.group["betas"][0]) ** float(each.state["step"])
    return _corrected(each, key) * (1 - remembered)


def _corrected(each: Member, key: str) -> Tensor:
    bias: float = 1 - float(each.group["betas"][1]) ** float(each.state["step"])
    return (_wide(each, key) / bias).sqrt() + float(each.group["eps"])


def _adagrad(each: Member) -> Tensor:
    slowed = 1 + (float(each.state["step"]) - 1) * float(each.group["lr_decay"])
    return (_wide(each, "sum").sqrt() + float(each.group["eps"])) * slowed


def _wide(each: Member, key: str) -> Tensor:
    """An entry of the state, in no less than float32."""
    value: Tensor = each.state[key]
    return value.detach().to(torch.promote_types(value.dtype, torch.float32))


ROOTS: dict[type[Optimizer], Callable[[Member], Tensor]] = {
    SGD: lambda _: torch.ones((), dtype=torch.float64),
    RMSprop: _rms,
    Adam: _adam,
    AdamW: _adam,
    NAdam: lambda each: _corrected(each, "exp_avg_sq"),
    Adagrad: _adagrad,
}
