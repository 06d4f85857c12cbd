"""The optimisers that are compared, each made for a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.optim import SGD, Adam, Muon, Optimizer, RMSprop

from lossgeom.lab.studies.edge_of_stability.config import Config


class SignDescent(Optimizer):
    r"""Steps of one size, :math:`\theta \leftarrow \theta - \eta \, \mathrm{sign}(\nabla L)`.

    >>> weight = nn.Parameter(torch.tensor([1.0, -1.0]))
    >>> weight.grad = torch.tensor([20.0, -0.1])
    >>> SignDescent([weight], lr=0.25).step()
    >>> weight.tolist()
    [0.75, -0.75]
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002
        """Take a step against the sign of each gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.sub_(parameter.grad.sign(), alpha=group["lr"])


Make = Callable[[Config, nn.Module], list[Optimizer]]


def _gradient_descent(config: Config, model: nn.Module) -> list[Optimizer]:
    return [SGD(model.parameters(), config.gradient_descent_lr)]


def _small_lr(config: Config, model: nn.Module) -> list[Optimizer]:
    return [SGD(model.parameters(), config.small_lr)]


def _heavy_ball(config: Config, model: nn.Module) -> list[Optimizer]:
    return [SGD(model.parameters(), config.heavy_ball_lr, config.heavy_ball_momentum)]


def _nesterov(config: Config, model: nn.Module) -> list[Optimizer]:
    momentum = config.nesterov_momentum
    return [SGD(model.parameters(), config.nesterov_lr, momentum, nesterov=momentum > 0)]


def _rmsprop(config: Config, model: nn.Module) -> list[Optimizer]:
    return [RMSprop(model.parameters(), config.rmsprop_lr, config.rmsprop_alpha)]


def _adam(config: Config, model: nn.Module) -> list[Optimizer]:
    return [Adam(model.parameters(), config.adam_lr, (config.adam_beta1, config.adam_beta2))]


def _muon(config: Config, model: nn.Module) -> list[Optimizer]:
    """Muon for the matrices, and gradient descent for all else."""
    matrices = [p for p in model.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if p.ndim != 2]
    return [Muon(matrices, config.muon_lr, weight_decay=0.0), SGD(others, config.bias_lr)]


def _sign_descent(config: Config, model: nn.Module) -> list[Optimizer]:
    return [SignDescent(model.parameters(), config.sign_descent_lr)]


WITH_THRESHOLD: dict[str, Make] = {
    "gradient_descent": _gradient_descent,
    "heavy_ball": _heavy_ball,
    "nesterov": _nesterov,
    "rmsprop": _rmsprop,
    "adam": _adam,
}
WITHOUT_THRESHOLD: dict[str, Make] = {"muon": _muon, "sign_descent": _sign_descent}
OPTIMIZERS: dict[str, Make] = {
    **WITH_THRESHOLD,
    "small_lr": _small_lr,
    **WITHOUT_THRESHOLD,
}
