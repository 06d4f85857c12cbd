"""Recorded operations that run again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from lossgeom.autodiff.recorded_products.operation import Operation, Slot, map_leaves

Values = list[Any]


class Program:
    """Operations in order, each result dropped after its last use.

    Args:
        operations: what to call.
        slots: how many results there may be.
        result: which of them to return.
    """

    def __init__(self, operations: Sequence[Operation], slots: int, result: Slot) -> None:
        last = {slot: place for place, o in enumerate(operations) for slot in o.inputs}
        for place, operation in enumerate(operations):
            for output in operation.outputs:
                if output is not None:
                    last.setdefault(output, place)
        last.pop(result, None)
        dropped: list[list[int]] = [[] for _ in operations]
        for slot, place in last.items():
            dropped[place].append(int(slot))
        self._steps = [
            (o.function, *_fillings(o), *_outputs(o), drop)
            for o, drop in zip(operations, dropped, strict=True)
        ]
        self._slots, self._result = slots, int(result)

    def __call__(self, v: Tensor) -> Tensor:
        """Run with v as the input."""
        values: Values = [None] * self._slots
        values[0] = v
        for function, args, fillings, kwargs, named, single, several, dropped in self._steps:
            given = list(args)
            for place, fill in fillings:
                given[place] = values[fill] if type(fill) is int else fill(values)
            if named:
                kwargs = {**kwargs, **{name: fill(values) for name, fill in named}}
            result = function(*given, **kwargs)
            if single is not None:
                values[single] = result
            else:
                for place, part in several:
                    values[place] = result[part]
            for place in dropped:
                values[place] = None
        return values[self._result]  # type: ignore[no-any-return]


def _fillings(operation: Operation) -> tuple[Any, ...]:
    """Split arguments into those that stay and those to be filled with results."""
    positional = [
        (place, int(part) if isinstance(part, Slot) else _filler(part))
        for place, part in enumerate(operation.args)
        if _holds_slot(part)
    ]
    named = [(name, _filler(part)) for name, part in operation.kwargs.items() if _holds_slot(part)]
    return operation.args, positional, operation.kwargs, named


def _holds_slot(part: Any) -> bool:
    return isinstance(part, Slot) or (
        isinstance(part, (tuple, list)) and any(map(_holds_slot, part))
    )


def _filler(part: Any) -> Callable[[Values], Any]:
    def fill(values: Values) -> Any:
        return map_leaves(lambda x: values[x] if isinstance(x, Slot) else x, part)

    return fill


def _outputs(operation: Operation) -> tuple[int | None, list[tuple[int, int]]]:
    """The slot of a single result, or the slots of several."""
    if not operation.several:
        (output,) = operation.outputs
        return (None, []) if output is None else (int(output), [])
    return None, [(int(slot), i) for i, slot in enumerate(operation.outputs) if slot is not None]
