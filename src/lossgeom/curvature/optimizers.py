"""Live optimisers: which of them are known, and what they hold for a problem's parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import SGD, Adagrad, Adam, AdamW, NAdam, Optimizer, RMSprop
from torch.optim.lr_scheduler import LRScheduler

from lossgeom.problem import Problem, checked_problem
from lossgeom.problem.live import live_parameters
from lossgeom.problem.sharded import whole

KNOWN: tuple[type[Optimizer], ...] = (SGD, RMSprop, AdamW, Adam, NAdam, Adagrad)
WRAPPERS = {"AcceleratedOptimizer", "LightningOptimizer", "_FabricOptimizer"}
HOOKED = Optimizer.profile_hook_step(lambda: None).__code__  # around the step of every class


class NoPreconditionerError(ValueError):
    """An adaptive optimiser that has taken no step, or one whose decay alone is unstable."""


@dataclass(frozen=True, eq=False)
class Member:
    """A parameter with the group and the state that its optimiser has for it."""

    parameter: Tensor
    optimizer: Optimizer
    group: Mapping[str, Any]
    state: Mapping[str, Any]


Entry = Callable[[Member], Tensor]


def unwrapped_optimizer(optimizer: Any) -> Optimizer:
    """The torch optimiser inside those of Accelerate and Lightning.

    Raises:
        TypeError: if it is not an optimiser.
    """
    while any(kind.__name__ in WRAPPERS for kind in type(optimizer).__mro__):
        optimizer = optimizer.optimizer
    if not isinstance(optimizer, Optimizer):
        name, inside = type(optimizer).__name__, isinstance(optimizer, LRScheduler)
        instead = "; pass the optimiser that it schedules" if inside else ""
        raise TypeError(f"expected a torch optimiser, got {name}{instead}")
    return optimizer


def known_kind(optimizer: Optimizer) -> type[Optimizer] | None:
    """The class of torch whose step an optimiser takes, if it is a known one.

    A subclass with a step of its own is not known, whatever that does.
    """
    step = type(optimizer).step
    for kind in KNOWN:
        if isinstance(optimizer, kind) and (
            step is kind.step or _without_hooks(step) is _without_hooks(kind.step)
        ):
            return kind
    return None


def _without_hooks(step: Any) -> Any:
    """A step without what torch puts around it when the first optimiser of a class is made."""
    while getattr(step, "__code__", None) is HOOKED:
        step = step.__wrapped__
    return step


def coupled_decay(optimizer: Optimizer, group: Mapping[str, Any]) -> float:
    """The weight decay that is part of a group's gradient."""
    return 0.0 if _is_decoupled(optimizer, group) else float(group["weight_decay"])


def decoupled_decay(optimizer: Optimizer, group: Mapping[str, Any]) -> float:
    """The weight decay that shrinks a group's parameters beside the step."""
    return float(group["weight_decay"]) if _is_decoupled(optimizer, group) else 0.0


def _is_decoupled(optimizer: Optimizer, group: Mapping[str, Any]) -> bool:
    return isinstance(optimizer, AdamW) or bool(group.get("decoupled_weight_decay", False))


def has_no_gradients(each: Member) -> bool:
    """Whether an adaptive optimiser has taken steps, but none with a gradient of this parameter."""
    taken = (has_stepped(state) for state in each.optimizer.state.values())
    return not has_stepped(each.state) and any(taken)


def has_stepped(state: Mapping[str, Any]) -> bool:
    """Whether an adaptive optimiser has had a gradient of the parameter that a state is of."""
    return float(state.get("step", 0)) > 0


def flat(problem: Problem, optimizers: Sequence[Optimizer], entry: Entry) -> Float[Tensor, " P"]:
    """Collect one number for each parameter of a problem from the optimisers of its model.

    Raises:
        TypeError: if one of them is not an optimiser.
        ValueError: if not exactly one of them updates a parameter of the problem.
    """
    found = members(problem, optimizers)
    values = [whole(entry(each).detach()).to(problem.theta) for each in found]
    shaped = zip(values, found, strict=True)
    return torch.cat([value.expand(each.parameter.shape).reshape(-1) for value, each in shaped])


def members(problem: Problem, optimizers: Sequence[Optimizer]) -> list[Member]:
    """The parameters of a problem, in its order, as :func:`flat` requires them."""
    found: dict[int, Member] = {}
    for optimizer in map(unwrapped_optimizer, optimizers):
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if id(parameter) in found:
                    raise ValueError("expected every parameter in one optimiser, got one in two")
                state = optimizer.state.get(parameter, {})
                found[id(parameter)] = Member(parameter, optimizer, group, state)
    for name in left_out(problem, optimizers):
        raise ValueError(
            f"expected the optimiser to update every parameter of the problem, but {name} is not "
            "among its parameters; make it with this model's parameters, or pass all of the "
            "model's optimisers as a list, or measure in those that it has with "
            "Problem(..., parameters=...)"
        )
    return [found[id(parameter)] for parameter in live_parameters(checked_problem(problem))]


def left_out(problem: Problem, optimizers: Sequence[Optimizer]) -> list[str]:
    """The names of a problem's parameters that none of the optimisers updates."""
    live = map(unwrapped_optimizer, optimizers)
    found = {id(p) for each in live for group in each.param_groups for p in group["params"]}
    named = zip(problem.network.names, live_parameters(checked_problem(problem)), strict=True)
    return [name for name, parameter in named if id(parameter) not in found]
