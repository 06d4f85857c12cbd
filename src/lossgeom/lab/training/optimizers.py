"""Optimisers by name, with the settings that they have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn
from torch.optim import SGD, Adam, AdamW, Muon, Optimizer

from lossgeom.messages.checks import check_number
from lossgeom.messages.wording import one_of


@dataclass(frozen=True)
class OptimizerSettings:
    """Settings that :meth:`made_for` makes torch's optimisers of.

    Attributes:
        name: one of ``OPTIMIZERS``.
        lr: the learning rate.
        momentum: how much of the last steps, or of its mean of gradients, it keeps in a step;
            gradient descent has none.
        second_momentum: how much of its mean of squared gradients Adam keeps.
        weight_decay: added to the gradient, as w times the parameters; taken from the parameters,
            as lr w times themselves, by AdamW and Muon.

    Raises:
        ValueError: for an unknown name, or a number out of its range.

    >>> OptimizerSettings("nesterov", lr=0.1).made_for(nn.Linear(2, 2))[0].defaults["nesterov"]
    True
    """

    name: str
    lr: float
    momentum: float = 0.9
    second_momentum: float = 0.999
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in OPTIMIZERS:
            raise ValueError(f"expected an optimizer, {one_of(OPTIMIZERS)}; got {self.name!r}")
        check_number("lr", self.lr, 0)
        check_number("momentum", self.momentum, 0, 1, at_low=True)
        check_number("second_momentum", self.second_momentum, 0, 1, at_low=True)
        check_number("weight_decay", self.weight_decay, 0, at_low=True)

    @property
    def betas(self) -> tuple[float, float]:
        """The two momenta of Adam."""
        return self.momentum, self.second_momentum

    def made_for(self, model: nn.Module) -> list[Optimizer]:
        """One optimiser for all parameters that are trained, or two; see :func:`optimize`."""
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        return OPTIMIZERS[self.name](self, trained)


Parameters = list[nn.Parameter]


def _gradient_descent(settings: OptimizerSettings, trained: Parameters) -> list[Optimizer]:
    return [SGD(trained, settings.lr, weight_decay=settings.weight_decay)]


def _momentum(settings: OptimizerSettings, trained: Parameters) -> list[Optimizer]:
    decay = settings.weight_decay
    return [SGD(trained, settings.lr, settings.momentum, weight_decay=decay)]


def _nesterov(settings: OptimizerSettings, trained: Parameters) -> list[Optimizer]:
    decay = settings.weight_decay
    return [SGD(trained, settings.lr, settings.momentum, weight_decay=decay, nesterov=True)]


def _adam(settings: OptimizerSettings, trained: Parameters) -> list[Optimizer]:
    return [Adam(trained, settings.lr, settings.betas, weight_decay=settings.weight_decay)]


def _adamw(settings: OptimizerSettings, trained: Parameters) -> list[Optimizer]:
    return [AdamW(trained, settings.lr, settings.betas, weight_decay=settings.weight_decay)]


def _muon(settings: OptimizerSettings, trained: Parameters) -> list[Optimizer]:
    """Muon for matrices, with steps as large as those of AdamW, which has all else."""
    matrices = [parameter for parameter in trained if parameter.ndim == 2]
    others = [parameter for parameter in trained if parameter.ndim != 2]
    options = settings.weight_decay, settings.momentum
    made: list[Optimizer] = _adamw(settings, others) if others else []
    if matrices:
        made.append(Muon(matrices, settings.lr, *options, adjust_lr_fn="match_rms_adamw"))
    return made


OPTIMIZERS: dict[str, Callable[[OptimizerSettings, Parameters], list[Optimizer]]] = {
    "gradient_descent": _gradient_descent,
    "momentum": _momentum,
    "nesterov": _nesterov,
    "adam": _adam,
    "adamw": _adamw,
    "muon": _muon,
}
