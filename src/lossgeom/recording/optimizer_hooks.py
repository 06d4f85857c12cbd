"""Hooks on optimisers: the one place that registers them, and what they see of a step."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.optim import LBFGS, Optimizer
from torch.utils.hooks import RemovableHandle


@runtime_checkable
class Follower(Protocol):
    """What is told of the steps that it wants to know of."""

    def wants(self, step: int) -> bool:
        """Whether to tell of a step."""
        ...

    def begin(self, step: int) -> Any:
        """Look at the model before a step; return what to see again at its end, or ``None``."""
        ...

    def end(
        self, step: int, begun: Any, gradients: Mapping[int, Tensor] | None, out_of_order: bool
    ) -> None:
        """Look at the model after a step, with what :meth:`begin` returned."""
        ...

    def failed(self, step: int, error: Exception) -> None:
        """Hear that a step could not be followed."""
        ...


class Steps:
    """Counts the steps of optimisers, and collects what they are given in those that are wanted.

    A step begins where the first optimiser does, for the last time before the last one does, and
    ends with the last. What began and did not end, because something raised an error, is forgotten
    where the next one begins. A step that calls that of its superclass, which may have the hooks
    called twice, is one. Hooks run as they are also in a step that ``torch.compile`` has compiled.

    Attributes:
        number: of the next step.
        wanted: whether that one is.
        stepped: places of optimisers that have made a step.
    """

    def __init__(self, optimizers: Sequence[Optimizer], follower: Follower, first: int) -> None:
        self.optimizers = tuple(optimizers)
        self.follower = follower
        self.number = first
        self.wanted = follower.wants(first)
        self._seen: _Seen | None = None
        self.stepped: set[int] = set()
        self._depths = [0] * len(self.optimizers)  # of steps that are called in steps
        self._handles: list[RemovableHandle] = []
        for place, optimizer in enumerate(self.optimizers):
            before, after = self._hooks(place)
            self._handles.append(optimizer.register_step_pre_hook(before))
            self._handles.append(optimizer.register_step_post_hook(after))

    def take_off(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self.wanted, self._seen = False, None

    def _hooks(self, place: int) -> tuple[Any, Any]:
        """What is called before and after a step of one optimiser: next to nothing, as a rule."""
        last, depths = place == len(self.optimizers) - 1, self._depths

        def before(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
            if depths[place] and not _is_inside_step(optimizer):  # an error has ended the last one
                depths[place] = 0
            depths[place] += 1
            if self.wanted and depths[place] == 1:
                self._tried(self._before, place, _has_closure(args, kwargs))

        def after(optimizer: Optimizer, args: Any, kwargs: Any) -> None:  # noqa: ARG001
            depths[place] = max(depths[place] - 1, 0)
            if depths[place]:
                return
            self.stepped.add(place)
            try:
                if self.wanted:
                    self._tried(self._after, place, _has_closure(args, kwargs))
            finally:
                if last:
                    self._count()

        uncompiled: Any = torch.compiler.disable
        return uncompiled(before), uncompiled(after)

    def _tried(self, told: Callable[[int, bool], None], place: int, closure: bool) -> None:
        try:
            told(place, closure)
        except Exception as error:
            self.wanted, self._seen = False, None
            self.follower.failed(self.number, error)

    def _before(self, place: int, closure: bool) -> None:
        if place == 0 or self._seen is None:
            self._seen = None
            begun = self.follower.begin(self.number)
            self.wanted = begun is not None
            self._seen = _Seen(begun) if self.wanted else None
        if self._seen is not None:
            optimizer = self.optimizers[place]
            self._seen.hidden |= closure and not evaluates_once(optimizer)
            self._seen.gradients |= {} if closure else gradients_given(optimizer)

    def _after(self, place: int, closure: bool) -> None:
        seen, optimizer = self._seen, self.optimizers[place]
        if seen is None:
            return
        seen.stepped.add(place)
        if closure and not seen.hidden:
            seen.gradients |= gradients_given(optimizer)
        if place == len(self.optimizers) - 1 and not _is_left_out(optimizer):
            gradients = None if seen.hidden or not seen.gradients else seen.gradients
            out_of_order = len(seen.stepped) < len(self.optimizers)
            self.follower.end(self.number, seen.begun, gradients, out_of_order)

    def _count(self) -> None:
        self._seen = None
        self.number += 1
        self.wanted = self.follower.wants(self.number)


@dataclass
class _Seen:
    """What is seen of the step that goes on.

    Attributes:
        begun: what the follower has of its beginning.
        gradients: what the optimisers are given, by the ids of parameters.
        hidden: whether a closure computes gradients where nobody sees them.
        stepped: which optimisers have made theirs.
    """

    begun: Any
    gradients: dict[int, Tensor] = field(default_factory=dict)
    hidden: bool = False
    stepped: set[int] = field(default_factory=set)


def _is_inside_step(optimizer: Optimizer) -> bool:
    """Whether a step of an optimiser is going on, from which this is called."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        code = frame.f_code
        first = code.co_varnames[0] if code.co_argcount else ""
        if code.co_name == "step" and frame.f_locals.get(first) is optimizer:
            return True
        frame = frame.f_back
    return False


def _has_closure(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a step is called with a closure; the optimiser itself is the first argument."""
    return any(callable(each) for each in (*args[1:], *kwargs.values()))


def gradients_given(optimizer: Optimizer) -> dict[int, Tensor]:
    """Copies of the gradients that an optimiser is given, by the ids of parameters.

    They are without the scale that a ``GradScaler`` leaves to a fused optimiser.
    """
    scale = vars(optimizer).get("grad_scale")
    found = {}
    for group in optimizer.param_groups:
        for p in group["params"]:
            if p.grad is not None:
                gradient = p.grad.detach().to_dense() if p.grad.is_sparse else p.grad.detach()
                found[id(p)] = gradient.clone() if scale is None else gradient / scale
    return found


def evaluates_once(optimizer: Optimizer) -> bool:
    """Whether an optimiser is known to call its closure once, before it changes anything."""
    return type(optimizer).__module__.startswith("torch.optim.") and type(optimizer) is not LBFGS


def _is_left_out(optimizer: Optimizer) -> bool:
    """Whether a ``GradScaler`` makes a fused optimiser leave out this step."""
    found = vars(optimizer).get("found_inf")
    return found is not None and bool(found)
