"""Modules taken out of a model, with the inputs that they get in it, as problems of their own."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lossgeom.batches import map_tensors
from lossgeom.problem import Problem
from lossgeom.problem.recomputation import called_once

MOVED = 10**6  # numbers that are moved each, or looked at, and of more only some
FILL = 1e30  # beyond which a number is no activation, but such as -inf in a mask


def frozen(arguments: Any) -> Any:
    """Arguments or outputs of a call, as they are now."""
    return map_tensors(lambda tensor: tensor.detach().clone(), arguments, strict=False)


def alone(like: Problem, module: nn.Module, args: Any, kwargs: Any) -> Problem | None:
    """Make a problem of a module in float64, in its parameters and inputs, if it has any."""
    made = _Alone(module, args, kwargs)
    if not any(parameter.requires_grad for parameter in made.parameters()):
        return None
    return Problem(
        made,
        _uneven,
        [(torch.zeros(1), torch.zeros(1))],
        mode=like.mode,
        seed=like.seed,
        forward=lambda alone, batch: alone(),  # noqa: ARG005
        dtype=torch.float64,
        check=False,
    )


class _Alone(nn.Module):
    """A module whose floating inputs are parameters, and whose outputs are one row."""

    def __init__(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        nn.Module.__init__(self)
        self.module = module
        self.inputs = nn.ParameterDict()
        self.kept: list[Tensor] = []
        self.arguments = map_tensors(self._place, [args, kwargs], strict=False)

    def _place(self, tensor: Tensor) -> Tensor:
        place = len(self.kept)
        self.kept.append(tensor)
        if tensor.is_floating_point():
            self.inputs[str(place)] = nn.Parameter(tensor.masked_fill(tensor.abs() > FILL, 0))
        return torch.tensor(place)

    def forward(self) -> Tensor:
        def given(place: Tensor) -> Tensor:
            kept = self.kept[int(place)]
            if str(int(place)) in self.inputs:
                far = kept.double()
                return torch.where(far.abs() > FILL, far, self.inputs[str(int(place))])
            return kept

        stand_ins = [part for part in self.module.modules() if isinstance(part, StandIn)]
        for stand_in in stand_ins:
            stand_in.called = 0
        # what is no tensor, such as a cache of keys and values, may be written to
        args, kwargs = map_tensors(given, copy.deepcopy(self.arguments), strict=False)
        with called_once():  # as stand-ins are
            outputs = floating(self.module(*args, **kwargs))
        if any(stand_in.called != len(stand_in.calls) for stand_in in stand_ins):
            raise ValueError("other modules are called than in the model")
        if not outputs:
            raise TypeError("the module puts out no floating tensors")
        parts = [output.reshape(-1)[:: 1 + output.numel() // MOVED] for output in outputs]
        return torch.cat([part.to(parts[0].dtype) for part in parts])[None]


def _uneven(outputs: Tensor, batch: Any) -> tuple[Tensor, int]:  # noqa: ARG001
    """A smooth function of a module's outputs whose derivatives all differ."""
    return (outputs.flatten() @ _waves(outputs)) + 0.5 * outputs.square().sum(), 1


def _waves(like: Tensor, pace: int = 1) -> Tensor:
    """Numbers between -1 and 1 that all differ, one for each in a tensor."""
    places = torch.arange(1, like.numel() + 1, dtype=torch.float64, device=like.device)
    return (pace * places).cos()


def floating(tree: Any) -> Any:  # who checks the types in a list looks at a random place of it
    """A list of the tensors of numbers in a tree, in the order in which they are mapped."""
    found: list[Tensor] = []

    def look(tensor: Tensor) -> Tensor:
        if tensor.is_floating_point():
            found.append(tensor)
        return tensor

    map_tensors(look, tree, strict=False)
    return found


class _Outputs:
    """What a call has put out, in float64, and a direction to move each part along.

    Copies share it, for it is never written to.
    """

    def __init__(self, tree: Any) -> None:
        self.tensors: list[Tensor] = []
        self.directions: list[Tensor | None] = []
        self.places = map_tensors(self._place, tree, strict=False)

    def __deepcopy__(self, memo: Any) -> _Outputs:
        return self

    def _place(self, tensor: Tensor) -> Tensor:
        place = torch.tensor(len(self.tensors))
        if tensor.is_floating_point():
            tensor = tensor.double()
            size = 0.5 * tensor.square().mean().sqrt().clamp(0.1, FILL)
            self.directions.append(_waves(tensor).view(tensor.shape).mul_(size))
        else:
            self.directions.append(None)
        self.tensors.append(tensor)
        return place


class StandIn(nn.Module):
    """What a module that calls another is given in its place: a smooth function without its cost.

    It puts out what the other has put out, moved by parameters of its own, and along a fixed
    direction as far as a sine of a sum over its inputs says.

    Args:
        outputs: of the calls of the other.
    """

    def __init__(self, outputs: Sequence[Any]) -> None:
        nn.Module.__init__(self)
        self.calls = [_Outputs(tree) for tree in outputs]
        self.called = 0
        moved = floating(outputs)
        self.each = sum(tensor.numel() for tensor in moved) <= MOVED
        self.shifts = nn.ParameterList(
            torch.zeros(tensor.shape if self.each else (), device=tensor.device) for tensor in moved
        )

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        call, before = self.calls[self.called], self.calls[: self.called]
        places = itertools.count(sum(d is not None for own in before for d in own.directions))
        self.called += 1
        inputs = [x.masked_fill(x.abs() > FILL, 0) for x in floating((args, kwargs))]
        # at another pace than that of the directions, or what goes from one to the next would grow
        sums = [(x.double().flatten() @ _waves(x, 2)) / max(1, x.numel()) ** 0.5 for x in inputs]
        far = torch.stack(sums).sum().sin() if sums else 0.0

        def moved(place: Tensor) -> Tensor:
            there, direction = call.tensors[int(place)], call.directions[int(place)]
            if direction is None:
                return there.clone()
            shift = self.shifts[next(places)]
            result: Tensor = (
                there + shift + far * direction if self.each else there + (shift + far) * direction
            )
            return result

        return map_tensors(moved, copy.deepcopy(call.places), strict=False)


def stripped(module: nn.Module, outputs: Mapping[nn.Module, Sequence[Any]]) -> nn.Module:
    """A module of the same type that shares its parameters, with stand-ins for what it calls.

    Parts of it that were not called, such as lists of modules, and layers of which it reads the
    weights, are parts of it as they are.

    Args:
        module: which is not touched.
        outputs: of the calls of the modules that have a stand-in.
    """
    return _stripped(module, {part: acted(part, outputs[part]) for part in outputs})


def _stripped(module: nn.Module, instead: Mapping[nn.Module, nn.Module]) -> nn.Module:
    other: nn.Module = object.__new__(type(module))
    vars(other).update(vars(module))
    vars(other)["_parameters"] = dict(module._parameters)
    vars(other)["_modules"] = {
        name: child
        if child is None
        else instead[child]
        if child in instead
        else _stripped(child, instead)
        for name, child in module._modules.items()
    }
    return other


def acted(module: nn.Module, outputs: Sequence[Any]) -> nn.Module:
    """A stand-in of the type of a module, with its attributes, but for numbers."""
    other, stand_in = _shapes(module), StandIn(outputs)
    other._modules["stand_in"] = stand_in
    vars(other)["forward"] = stand_in.forward
    return other


def _shapes(module: nn.Module) -> nn.Module:
    """A module without numbers and hooks: it can be looked at, and neither called nor read."""
    other: nn.Module = object.__new__(type(module))
    vars(other).update(vars(module))
    for name in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
        vars(other)[name] = type(vars(module)[name])()
    vars(other)["_parameters"] = {
        name: None if p is None else nn.Parameter(_shape(p), requires_grad=False)
        for name, p in module._parameters.items()
    }
    vars(other)["_buffers"] = {
        name: None if buffer is None else _shape(buffer) for name, buffer in module._buffers.items()
    }
    vars(other)["_modules"] = {
        name: None if child is None else _shapes(child) for name, child in module._modules.items()
    }
    return other


def _shape(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor.detach(), device="meta")
