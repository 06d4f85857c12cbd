"""Hooks on modules: the one place that registers them and takes them away."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from lossgeom.batches import Batch, map_tensors
from lossgeom.problem import Problem

Note = TypeVar("Note")


class Shift:
    """A hook that adds consecutive pieces of a vector to what a module puts out."""

    def __init__(self, vector: Tensor) -> None:
        self.vector = vector
        self.used = 0

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Any:  # noqa: ARG002
        return map_tensors(self._shifted, output, strict=False)

    def _shifted(self, tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        piece = self.vector[self.used : self.used + tensor.numel()]
        self.used += tensor.numel()
        return tensor + piece.view(tensor.shape).to(tensor.dtype)  # narrower under autocast


class Calls:
    """A hook that collects what a module puts out, call after call."""

    def __init__(self) -> None:
        self.outputs: list[Tensor] = []

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:  # noqa: ARG002
        map_tensors(self._collect, output, strict=False)

    def _collect(self, tensor: Tensor) -> Tensor:
        if tensor.is_floating_point():
            self.outputs.append(tensor.reshape(-1).clone())  # a model may go on in place
        return tensor

    def flat(self, theta: Tensor) -> Tensor:
        """Return all of it as one vector, which is empty where nothing was called."""
        outputs = [output.to(theta.dtype) for output in self.outputs]
        return torch.cat(outputs) if outputs else theta.new_zeros(0)


def detach_inputs(module: nn.Module, args: Any, kwargs: Any) -> Any:  # noqa: ARG001
    """Cut what a module is called with from its history, as a hook."""
    return tuple(map_tensors(torch.detach, part, strict=False) for part in (args, kwargs))


@torch.no_grad()
def size_of_calls(problem: Problem, modules: Sequence[nn.Module], batch: Batch) -> int:
    """Count the numbers that some modules put out on a batch, all calls together."""
    calls = Calls()
    with hooked(modules, calls):
        problem.outputs(problem.theta, batch)
    return calls.flat(problem.theta).numel()


@torch.no_grad()
def noted(
    problem: Problem,
    modules: Iterable[nn.Module],
    batch: Batch,
    note: Callable[[nn.Module, Any, Any], Note],
) -> list[list[Note]]:
    """Return what is noted of every call of some modules on a batch, module by module."""
    notes: dict[nn.Module, list[Note]] = {module: [] for module in modules}

    def take(module: nn.Module, args: Any, output: Any) -> None:
        notes[module].append(note(module, args, output))

    with hooked(list(notes), take):
        problem.outputs(problem.theta, batch)
    return list(notes.values())


@contextmanager
def hooked(modules: Sequence[nn.Module], after: Any = None, before: Any = None) -> Iterator[None]:
    """Register hooks after and before every call of some modules, and take them off again."""
    with ExitStack() as stack:
        for module in modules:
            if after is not None:
                stack.callback(module.register_forward_hook(after).remove)
            if before is not None:
                handle = module.register_forward_pre_hook(before, with_kwargs=True)
                stack.callback(handle.remove)
        yield
