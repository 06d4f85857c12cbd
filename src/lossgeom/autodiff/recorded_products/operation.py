"""One recorded call of an operator of PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor


class Slot(int):
    """The place of a result among all results."""


@dataclass(frozen=True, eq=False)
class Operation:
    """A call whose arguments hold slots, where a tensor depends on the input, and constants.

    Attributes:
        function: the overload that is called.
        args: its positional arguments.
        kwargs: its keyword arguments.
        outputs: where the results go; None for one that is not there.
        several: whether it returns a tuple.
        shares: whether a result may be in the memory of an argument.
    """

    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[Any, ...]
    several: bool
    shares: bool = False

    @cached_property
    def inputs(self) -> tuple[Slot, ...]:
        """The slots among the arguments, as often as they occur."""
        return tuple(leaf for leaf in self._leaves() if isinstance(leaf, Slot))

    def constants(self) -> Iterator[Tensor]:
        """The tensors among the arguments, which do not depend on the input."""
        return (leaf for leaf in self._leaves() if isinstance(leaf, Tensor))

    def _leaves(self) -> list[Any]:
        return leaves_of((*self.args, *self.kwargs.values()))


def storage_of(tensor: Tensor) -> int:
    """What tells the memory that a tensor is in from all other memory in use."""
    return int(tensor.untyped_storage()._cdata)


def bare(leaf: Any) -> Any:
    """The same tensor, or other argument, as an object that does not hold a tangent."""
    return leaf.detach() if isinstance(leaf, Tensor) else leaf


def leaves_of(tree: Any) -> list[Any]:
    """List arguments, those in lists one by one."""
    found = []
    for part in tree:
        if isinstance(part, (tuple, list)):
            found += leaves_of(part)
        else:
            found.append(part)
    return found


def map_leaves(function: Callable[[Any], Any], tree: Any) -> Any:
    """Apply a function to an argument, or to each of a list of them."""
    if isinstance(tree, (tuple, list)):
        return [map_leaves(function, part) for part in tree]
    return function(tree)
