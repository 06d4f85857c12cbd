"""The sharpness beyond which an optimiser's iteration is unstable."""

from __future__ import annotations

import math

from torch.optim import SGD, Optimizer


class Threshold(float):
    """A number, and in words how it was computed: ``2 / 0.5`` is ``"2/lr"``."""

    formula: str

    def __new__(cls, value: float, formula: str = "threshold") -> Threshold:  # noqa: D102
        made = super().__new__(cls, value)
        made.formula = formula
        return made


def stability_threshold(optimizer: Optimizer) -> Threshold:
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

    Returns:
        A float that says by its ``formula``, such as ``"2/lr"``, what it is, for figures.

    Raises:
        TypeError: for any other optimiser, whose threshold is on another matrix than the Hessian.
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
            f"{type(optimizer).__name__}"
        )
    names = ("lr", "momentum", "dampening", "nesterov", "weight_decay", "maximize")
    settings = {tuple(float(group[name]) for name in names) for group in optimizer.param_groups}
    if len(settings) > 1:
        raise ValueError(
            f"expected all parameter groups to agree in {', '.join(names)}; with different "
            "settings no single sharpness decides stability"
        )
    lr, momentum, dampening, nesterov, weight_decay, maximize = settings.pop()
    if maximize:
        raise ValueError("expected an optimiser that minimises, got maximize=True")
    if not lr > 0:
        raise ValueError(f"expected a learning rate > 0, got {lr}")
    decay = " - weight decay" if weight_decay else ""
    if not momentum:
        return Threshold(2 / lr - weight_decay, f"2/lr{decay}")
    growth = 1 + 2 * momentum if nesterov else 1 - dampening
    if growth == 0:  # the gradient no longer reaches the momentum
        return Threshold(math.inf, "threshold")
    beside = " (1 + 2 momentum)" if nesterov else " (1 - dampening)" if dampening else ""
    divisor = f"(lr{beside})" if beside else "lr"
    value = 2 * (1 + momentum) / (lr * growth) - weight_decay
    return Threshold(value, f"2 (1 + momentum)/{divisor}{decay}")
