"""Gradients of weights that are computed once something needs them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lossgeom.autodiff.recorded_products.operation import bare, leaves_of, map_leaves, storage_of

aten = torch.ops.aten
CONVOLUTION = aten.convolution_backward.default
MASK = 10  # place of the argument of it that says which gradients are asked for


class Deferred:
    """Gradients of the weights of convolutions, left out until something reads their numbers.

    The derivative of a gradient needs nothing of the gradient itself, but for what it is pulled
    back through. What stands for such numbers has the right shape, and what is made of it by views
    and by putting parts in one vector stands for others in the same way.
    """

    def __init__(self) -> None:
        self._calls: list[tuple[Any, Any, Any, dict[int, Tensor]]] = []  # with results left out
        self._hollow: set[int] = set()  # storages of these
        self._read: set[int] = set()  # those that the calls read

    def call(self, func: Any, args: Any, kwargs: Any, blind: bool) -> Any:
        """Call an operator on constants, blind to numbers or not, and leave out what can be."""
        if func is CONVOLUTION and args[MASK][0] and args[MASK][1]:
            return self._without_weights(args, kwargs)
        if self._hollow and not self._hollow.isdisjoint(_storages((*args, *kwargs.values()))):
            if func is aten.cat.default and {(1, args[0][0].dtype)} == _kinds(args[0]):
                result = args[0][0].new_empty(sum(map(len, args[0])))
                self._leave_out(func, args, kwargs, {0: result})
                return result
            if not blind:
                self.compute()
        return func(*args, **kwargs)

    def before(self, arguments: Any, written: Any) -> None:
        """Compute what was left out where it is about to be read, or what it is made of changed."""
        if self._calls:
            read, changed = set(_storages(arguments)), set(_storages(written))
            if read & self._hollow or changed & (self._hollow | self._read):
                self.compute()

    def compute(self) -> None:
        """Compute all that was left out, in order."""
        calls, self._calls = self._calls, []
        for func, args, kwargs, left_out in calls:
            result = func(*args, **kwargs)
            for place, tensor in left_out.items():
                tensor.copy_(result[place] if isinstance(result, tuple) else result)
        self._hollow, self._read = set(), set()

    def _without_weights(self, args: Any, kwargs: Any) -> Any:
        first, _, last = CONVOLUTION(*args[:MASK], [True, False, args[MASK][2]], **kwargs)
        hollow = torch.empty_like(args[2], memory_format=torch.contiguous_format)
        only = (*args[:MASK], [False, True, False])
        self._leave_out(CONVOLUTION, only, kwargs, {1: hollow})
        return first, hollow, last

    def _leave_out(self, func: Any, args: Any, kwargs: Any, left_out: dict[int, Tensor]) -> None:
        args, kept = map_leaves(bare, args), {k: bare(part) for k, part in left_out.items()}
        self._calls.append((func, args, kwargs, kept))
        self._hollow.update(_storages(left_out.values()))
        self._read.update(_storages(args))


def _kinds(tensors: Sequence[Tensor]) -> set[tuple[int, torch.dtype]]:
    return {(tensor.ndim, tensor.dtype) for tensor in tensors}


def _storages(arguments: Any) -> list[int]:
    return [storage_of(leaf) for leaf in leaves_of(arguments) if isinstance(leaf, Tensor)]
