"""Derivatives of the modules of a model, one by one, with the inputs that they get in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from torch import nn

from lossgeom.autodiff.hooks import hooked
from lossgeom.problem import Problem
from lossgeom.problem.isolation import measuring
from lossgeom.trust.alone import alone, frozen
from lossgeom.trust.finite_differences import BAD, Finding, Order, Point, examine, unchecked


@dataclass(frozen=True)
class ModuleFinding:
    """Findings on the modules of one type.

    Attributes:
        kind: name of the type.
        name: of the module that was examined, the first one of its type.
        findings: by order of derivative.
    """

    kind: str
    name: str
    findings: dict[Order, Finding]

    def bad(self, order: Order) -> bool:
        """Whether a derivative is wrong or does not exist."""
        return order in self.findings and self.findings[order].status in BAD


def examine_modules(
    small: Problem, model: dict[Order, Finding], seed: int
) -> Iterator[ModuleFinding]:
    """Examine every type of module without children; others only for what those do not explain."""
    calls = _calls(small)
    leaves = [
        name for name in calls if not any(small.network.module.get_submodule(name).children())
    ]
    bad: set[str] = set()
    unexplained = {order for order, finding in model.items() if finding.status in BAD}
    kinds: set[type] = set()
    for name in [*leaves, *reversed([name for name in calls if name not in leaves])]:
        module = small.network.module.get_submodule(name)
        orders = list(model) if name in leaves else [o for o in model if o in unexplained]
        inside = any(other.startswith(f"{name}." if name else "") for other in bad)
        if type(module) in kinds or not orders or (name not in leaves and inside):
            continue
        kinds.add(type(module))
        try:
            problem = alone(small, module, *calls[name])
        except (TypeError, ValueError):  # of what cannot be copied
            continue
        if problem is None:
            continue
        try:
            point = Point(problem, seed)
        except Exception as error:  # of whatever a module is, away from the user's own point
            findings = unchecked(orders, error)
        else:
            findings = examine(point, orders)
        found = ModuleFinding(type(module).__name__, name, findings)
        now = {order for order in orders if found.bad(order)}
        unexplained -= now
        if now:
            bad.add(name)
        yield found


def _calls(small: Problem) -> dict[str, tuple[Any, Any]]:
    """The arguments of the first call of every module, in the order of the calls' beginnings."""
    names = {module: name for name, module in small.network.module.named_modules()}
    calls: dict[str, tuple[Any, Any]] = {}

    def note(module: nn.Module, args: Any, kwargs: Any) -> None:
        calls.setdefault(names[module], (frozen(args), frozen(kwargs)))

    # what was called before the model raises, if it does, can still be examined
    raised = suppress(ArithmeticError, RuntimeError, TypeError, ValueError)
    with hooked(list(names), before=note), measuring(small.theta.device), raised:
        small.outputs(small.theta, small.first_batch())
    return calls
