"""What the parameter groups of live optimisers make of gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch.optim import SGD, Adagrad, Adam, AdamW, NAdam, Optimizer, RMSprop

from lossgeom.curvature.optimizers import coupled_decay, decoupled_decay, has_stepped
from lossgeom.stability.linear_filter import LinearFilter, edge

# Of the averaged gradient: after t of its memories, a P of stationary gradients, which changes by
# 1 / (2 steps) a step at most, changes by 1 / (2 t) while a gradient is remembered.
MEMORIES = 10

State = Mapping[str, Any]
Filtered = tuple[LinearFilter, str, tuple[str, ...]]


@dataclass(frozen=True)
class Rule:
    """What decides the stability of one parameter group.

    Attributes:
        kind: class of torch whose step it is.
        linear_filter: of its gradients.
        top, bottom: words for the edge, as a fraction, without the learning rate.
        lr, coupled, decoupled, maximize: its settings, with its weight decay of either kind.
        nominal: whether its preconditioner changes too fast, or its filter, to be held fixed.
    """

    kind: type[Optimizer]
    linear_filter: LinearFilter
    top: str
    bottom: tuple[str, ...]
    lr: float
    coupled: float
    decoupled: float
    maximize: bool
    nominal: bool

    def formula(self, *factors: str) -> str:
        """The edge in words, with further factors of the denominator."""
        below = (*factors, *self.bottom)
        if len(below) > 1:
            return f"{self.top}/({' '.join(below)})"
        return f"{self.top}/{below[0]}" if below else self.top


def rules(optimizer: Optimizer, kind: type[Optimizer]) -> Iterator[Rule]:
    """Read the parameter groups of an optimiser of a known kind."""
    stepped = any(map(has_stepped, optimizer.state.values()))
    for group in optimizer.param_groups:
        known = [optimizer.state.get(parameter, {}) for parameter in group["params"]]
        states = list(filter(has_stepped, known))
        if stepped and not states:  # of parameters that have no gradients and do not move
            continue
        yield Rule(
            kind,
            *FILTERS[kind](group, states),
            lr=float(group["lr"]),
            coupled=coupled_decay(optimizer, group),
            decoupled=decoupled_decay(optimizer, group),
            maximize=bool(group["maximize"]),
            nominal=_is_nominal(kind, group, states),
        )


def _is_nominal(kind: type[Optimizer], group: State, states: list[State]) -> bool:
    if kind in (SGD, Adagrad):
        return kind is Adagrad
    memory = group["momentum"] if kind is RMSprop else group["betas"][0]
    steps = {float(state.get("step", 0)) for state in states}
    differ = kind is NAdam and len(steps) > 1
    return differ or min(steps, default=0.0) * (1 - float(memory)) < MEMORIES


def _sgd(group: State) -> Filtered:
    momentum, dampening = float(group["momentum"]), float(group["dampening"])
    if group["nesterov"] and momentum:
        words = "(1 + 2 momentum - momentum dampening)" if dampening else "(1 + 2 momentum)"
        return LinearFilter.nesterov(momentum, dampening), "2 (1 + momentum)", (words,)
    return _heavy_ball(momentum, dampening if momentum else 0.0)


def _heavy_ball(momentum: float, dampening: float = 0.0) -> Filtered:
    top = "2 (1 + momentum)" if momentum else "2"
    bottom = ("(1 - dampening)",) if dampening else ()
    return LinearFilter.heavy_ball(momentum, dampening), top, bottom


def _adam(group: State) -> Filtered:
    return LinearFilter.adam(float(group["betas"][0])), "2 (1 + b1)", ("(1 - b1)",)


def _nadam(group: State, states: list[State]) -> Filtered:
    """The filter of the last step, or of the first if there was none."""
    beta1, decay = float(group["betas"][0]), float(group["momentum_decay"])

    def mu(step: float) -> float:
        return float(beta1 * (1 - 0.5 * 0.96 ** (step * decay)))

    def of(state: State) -> LinearFilter:
        step = max(float(state.get("step", 0)), 1.0)
        product = float(state.get("mu_product", mu(1.0))) if state else mu(1.0)
        gradient = (1 - mu(step)) / (1 - product)
        return LinearFilter.nadam(beta1, gradient, mu(step + 1) / (1 - product * mu(step + 1)))

    least = min(map(of, states or [{}]), key=edge)
    return least, "2", ("(1 - mu + mu (1 - b1)/(1 + b1))",)


FILTERS: dict[type[Optimizer], Callable[[State, list[State]], Filtered]] = {
    SGD: lambda group, _: _sgd(group),
    RMSprop: lambda group, _: _heavy_ball(float(group["momentum"])),
    Adam: lambda group, _: _adam(group),
    AdamW: lambda group, _: _adam(group),
    NAdam: _nadam,
    Adagrad: lambda *_: _heavy_ball(0.0),
}
