"""What torch's own optimisers do a hundredth below and above their thresholds, on a quadratic.

The preconditioner is held fixed, as the thresholds assume: squared gradients stand where they were
put, since the parameters are some 1e-90 from the minimum and their squares do not count, and the
step is one at which all bias corrections are over.
"""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adagrad, Adam, AdamW, NAdam, RMSprop

import lossgeom as lg
from lossgeom.stability import optimizer_state

SQUARES = torch.tensor([0.04, 0.25, 1.0, 2.25], dtype=torch.float64)
EIGENVALUES = torch.tensor([3.0, 1.0, 0.3, 0.05], dtype=torch.float64)
LATE = 1e15  # a float32 does not count on from there
START, STEPS = 1e-90, 300
SLOW = {"eps": 1e-2}
ADAM = {**SLOW, "betas": (0.9, 1 - 1e-12)}


class Two(nn.Module):
    """A linear function in two parts, to be trained at different rates."""

    def __init__(self):
        super().__init__()
        self.a, self.b = (
            nn.Parameter(torch.full((2,), START, dtype=torch.float64)) for _ in range(2)
        )

    def forward(self, x):
        return x @ torch.cat([self.a, self.b])[:, None]


@dataclass
class Configuration:
    """An optimiser, and what its two groups have of their own."""

    kind: type
    settings: dict[str, Any]
    matrix: str = "PreconditionedHessian"
    second: dict[str, Any] = field(default_factory=dict)

    def optimizer(self, model: Two, lr: float) -> torch.optim.Optimizer:
        first, second = {"params": [model.a], "lr": lr}, {"params": [model.b], "lr": lr}
        ratio = self.second.get("lr", 1.0)
        made = self.kind([first, {**second, **self.second, "lr": ratio * lr}], **self.settings)
        for parameter, v in zip((model.a, model.b), SQUARES.split(2), strict=True):
            made.state[parameter] = self.state(v.clone())
        return made

    def state(self, v: torch.Tensor) -> dict[str, torch.Tensor]:
        step, zeros = torch.tensor(LATE), torch.zeros_like(v)
        if self.kind is RMSprop:
            averages = {"grad_avg": zeros + 0.1, "square_avg": v + 0.01 * self.settings["centered"]}
            return {"step": step, "momentum_buffer": zeros, **averages}
        if self.kind is Adagrad:
            return {"step": torch.tensor(5.0), "sum": v}
        if self.kind is SGD:
            return {}
        averages = {"exp_avg": zeros, "exp_avg_sq": 0.5 * v, "max_exp_avg_sq": v}
        if not self.settings.get("amsgrad"):
            averages["exp_avg_sq"] = v
        return {"step": step, "mu_product": torch.tensor(0.0), **averages}


def rmsprop(**settings):
    return Configuration(
        RMSprop, {"alpha": 1 - 1e-12, "centered": False, "momentum": 0.0, **SLOW, **settings}
    )


CONFIGURATIONS = {
    "gradient descent": Configuration(SGD, {}, "Hessian"),
    "weight decay": Configuration(SGD, {"weight_decay": 0.5}, "Hessian"),
    "heavy ball": Configuration(SGD, {"momentum": 0.9}, "Hessian"),
    "heavy ball, decay": Configuration(SGD, {"momentum": 0.7, "weight_decay": 0.5}, "Hessian"),
    "dampened": Configuration(SGD, {"momentum": 0.5, "dampening": 0.3}, "Hessian"),
    "Nesterov": Configuration(SGD, {"momentum": 0.9, "nesterov": True}, "Hessian"),
    "Nesterov, decay": Configuration(
        SGD, {"momentum": 0.5, "nesterov": True, "weight_decay": 0.2}, "Hessian"
    ),
    "two decays": Configuration(SGD, {"momentum": 0.5}, "ObjectiveHessian", {"weight_decay": 0.5}),
    "two rates": Configuration(SGD, {"momentum": 0.5}, second={"lr": 3.0}),
    "two rates and decays": Configuration(
        SGD, {"momentum": 0.9, "nesterov": True}, second={"lr": 0.2, "weight_decay": 0.5}
    ),
    "maximised": Configuration(SGD, {"momentum": 0.5, "maximize": True, "weight_decay": 0.2}),
    "RMSprop": rmsprop(),
    "RMSprop, momentum": rmsprop(momentum=0.9),
    "RMSprop, centered": rmsprop(centered=True),
    "RMSprop, all": rmsprop(centered=True, momentum=0.5, weight_decay=0.2),
    "Adam": Configuration(Adam, ADAM),
    "Adam without momentum": Configuration(Adam, {**ADAM, "betas": (0.0, 1 - 1e-12)}),
    "Adam, coupled decay": Configuration(Adam, {**ADAM, "weight_decay": 0.5}),
    "AMSGrad": Configuration(Adam, {**ADAM, "amsgrad": True}),
    "AdamW": Configuration(AdamW, {**ADAM, "weight_decay": 0.3}),
    "AdamW, two decays": Configuration(AdamW, ADAM, second={"weight_decay": 0.0, "lr": 0.5}),
    "NAdam": Configuration(NAdam, ADAM),
    "NAdam, decoupled decay": Configuration(
        NAdam, {**ADAM, "weight_decay": 0.3, "decoupled_weight_decay": True}
    ),
    "Adagrad": Configuration(Adagrad, {**SLOW, "lr_decay": 0.0}),
}


def quadratic() -> tuple[torch.Tensor, Two, lg.Problem]:
    """A Hessian of these eigenvalues in rotated directions, and a problem that has it."""
    generator = torch.Generator().manual_seed(0)
    Q = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64)).Q
    model, x = Two(), (Q * (4 * EIGENVALUES).sqrt()) @ Q.T
    problem = lg.Problem(model, "squared_error", [(x, torch.zeros(4, 1).double())])
    return (Q * EIGENVALUES) @ Q.T, model, problem


def ratio(configuration: Configuration, lr: float) -> float:
    """The largest eigenvalue of the threshold's matrix, in units of the threshold."""
    _, model, problem = quadratic()
    if configuration.settings.get("maximize"):
        problem = negative(problem)
    state = optimizer_state(problem, configuration.optimizer(model, lr))
    assert state.threshold.matrix == configuration.matrix
    top = torch.linalg.eigvalsh(state.matrix(problem).dense())[-1].item()
    return top / state.threshold


def negative(problem: lg.Problem) -> lg.Problem:
    """With minus the loss, to be maximised."""

    def loss(outputs, batch):
        return -0.5 * outputs.square().sum(), len(outputs)

    return lg.Problem(problem.model, loss, problem.batches)


def at_the_edge(configuration: Configuration) -> float:
    """The learning rate whose ratio is 1, by secants through 1 / ratio as a function of 1 / lr.

    For most this is a straight line.
    """
    u, v = 10.0, 5.0
    at_u, at_v = (1 / ratio(configuration, 1 / each) for each in (u, v))
    for _ in range(6):
        if abs(at_v - 1) < 1e-12:
            break
        u, v, at_u = v, v + (1 - at_v) * (v - u) / (at_v - at_u), at_v
        at_v = 1 / ratio(configuration, 1 / v)
    return 1 / v


def final_size(configuration: Configuration, lr: float) -> float:
    H, model, _ = quadratic()
    optimizer = configuration.optimizer(model, lr)
    sign = -1.0 if configuration.settings.get("maximize") else 1.0
    for _ in range(STEPS):
        gradient = sign * H @ torch.cat([model.a, model.b]).detach()
        model.a.grad, model.b.grad = gradient.split(2)
        optimizer.step()
    return torch.cat([model.a, model.b]).detach().norm().item()


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_steps_converge_below_and_diverge_above_the_threshold(name):
    configuration = CONFIGURATIONS[name]
    lr = at_the_edge(configuration)
    assert ratio(configuration, lr) == pytest.approx(1, rel=1e-9)
    assert final_size(configuration, 0.99 * lr) < START * 1e-1
    assert final_size(configuration, 1.01 * lr) > START * 1e2
