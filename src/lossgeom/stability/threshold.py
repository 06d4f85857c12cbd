"""The sharpness beyond which an optimiser's iteration is unstable."""

from __future__ import annotations

import math
from typing import Literal

from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

Of = Literal["data loss", "objective"]


class Threshold(float):
    """A number that says how it was computed: 4.0 by ``"2/lr"``."""

    formula: str

    def __new__(cls, value: float, formula: str = "threshold") -> Threshold:
        made = super().__new__(cls, value)
        made.formula = formula
        return made


def stability_threshold(optimizer: Optimizer, of: Of = "data loss") -> Threshold:
    r"""The sharpness of the data loss at which full-batch steps stop being stable.

    On a quadratic with eigenvalue :math:`\lambda`, with step :math:`\eta`, momentum
    :math:`\beta`, dampening :math:`d` and weight decay :math:`w`, the iteration is stable for
    :math:`\lambda + w` up to

    .. math:: 2 / \eta, \qquad \frac{2 (1 + \beta)}{\eta (1 - d)}, \qquad
        \frac{2 (1 + \beta)}{\eta (1 + 2 \beta)}

    for gradient descent, heavy-ball momentum and Nesterov momentum as torch writes them. The edge
    of stability is a statement about full-batch training; with small batches an optimiser becomes
    unstable earlier.

    Args:
        optimizer: a live ``torch.optim.SGD``; its current learning rate is read.
        of: ``"objective"`` for the threshold of the sharpness of what is optimised, weight decay
            included, of :class:`lossgeom.ObjectiveHessian`: without w. It is there, too, where
            parameter groups differ in their weight decay.

    Returns:
        A float that says by its ``formula``, such as ``"2/lr"``, what it is, for figures.

    Raises:
        TypeError: for any other optimiser, whose threshold is on another matrix than the Hessian;
            it says which.
        ValueError: if parameter groups differ in a setting, or it maximises.

    Source: Cohen et al., Gradient descent on neural networks typically occurs at the edge of
    stability (2021), section 2 and appendix B.

    >>> import torch
    >>> threshold = stability_threshold(SGD([torch.zeros(1, requires_grad=True)], lr=0.5))
    >>> threshold, threshold.formula
    (4.0, '2/lr')
    """
    if type(optimizer) is not SGD:
        raise TypeError(
            "expected torch.optim.SGD, whose stability depends on the Hessian alone; got "
            f"{type(optimizer).__name__}{_instead(optimizer)}"
        )
    if of not in ("data loss", "objective"):
        raise ValueError(f"expected of to be 'data loss' or 'objective', got {of!r}")
    names = ("lr", "momentum", "dampening", "nesterov", "maximize")
    settings = {tuple(float(group[name]) for name in names) for group in optimizer.param_groups}
    if len(settings) > 1:
        raise ValueError(
            f"expected all parameter groups to agree in {', '.join(names)}; with different "
            "settings no single sharpness decides stability. With different learning rates alone, "
            "the largest eigenvalue of PreconditionedHessian(problem, optimizer) does, at "
            "2 (1 + momentum)"
        )
    lr, momentum, dampening, nesterov, maximize = settings.pop()
    if maximize:
        raise ValueError("expected an optimiser that minimises, got maximize=True")
    if not lr > 0:
        raise ValueError(f"expected a learning rate > 0, got {lr}")
    threshold = _on_objective(lr, momentum, dampening, bool(nesterov))
    decays = {float(group["weight_decay"]) for group in optimizer.param_groups}
    if of == "objective":
        return threshold
    if len(decays) > 1:
        raise ValueError(
            f"the parameter groups differ in weight_decay, {sorted(decays)}, so no single "
            "sharpness of the data loss decides stability: compare the largest eigenvalue of "
            "ObjectiveHessian(problem, optimizer) with stability_threshold(optimizer, "
            f"of='objective'), which is {threshold:g}"
        )
    weight_decay = decays.pop()
    if not weight_decay:
        return threshold
    return Threshold(threshold - weight_decay, f"{threshold.formula} - weight decay")


def _on_objective(lr: float, momentum: float, dampening: float, nesterov: bool) -> Threshold:
    if not momentum:
        return Threshold(2 / lr, "2/lr")
    growth = 1 + 2 * momentum if nesterov else 1 - dampening
    if growth == 0:  # the gradient no longer reaches the momentum
        return Threshold(math.inf, "threshold")
    beside = " (1 + 2 momentum)" if nesterov else " (1 - dampening)" if dampening else ""
    divisor = f"(lr{beside})" if beside else "lr"
    return Threshold(2 * (1 + momentum) / (lr * growth), f"2 (1 + momentum)/{divisor}")


def _instead(optimizer: Optimizer) -> str:
    """Say what decides the stability of another optimiser, as far as it is known."""
    matrix = (
        ", whose stability the largest eigenvalue of PreconditionedHessian(problem, optimizer) "
    )
    if isinstance(optimizer, (Adam, AdamW)):
        b1 = float(optimizer.param_groups[0]["betas"][0])
        threshold = 2 * (1 + b1) / (1 - b1)
        return (
            f"{matrix}decides: up to 2 (1 + b1) / (1 - b1) = {threshold:g} while v changes little"
        )
    if isinstance(optimizer, RMSprop):
        return f"{matrix}decides: up to 2 (1 + momentum) while v changes little"
    if "sam" in type(optimizer).__name__.lower():
        return (
            ". With radius rho, learning rate lr and gradient norm g, the sharpness at which SAM's "
            "steps stop being stable is g / (2 rho) (sqrt(1 + 8 rho / (lr g)) - 1), below 2 / lr "
            "(Long and Bartlett, arXiv:2309.12488)"
        )
    return ""
