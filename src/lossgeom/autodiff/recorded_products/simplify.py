"""Rules that make recorded operations fewer and cheaper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lossgeom.autodiff.recorded_products.operation import Operation, Slot, map_leaves
from lossgeom.autodiff.recorded_products.recorder import Kind

aten = torch.ops.aten

# A view may be impossible of a result that comes with other strides than when it was recorded.
RESHAPED = {
    aten.view.default: aten.reshape.default,
    aten._unsafe_view.default: aten.reshape.default,
}
ALIKE = {aten.detach.default, aten.reshape.default}  # views of the same numbers, if as large
IN_PLACE = {
    aten.add.Tensor: aten.add_.Tensor,
    aten.sub.Tensor: aten.sub_.Tensor,
    aten.mul.Tensor: aten.mul_.Tensor,
    aten.mul.Scalar: aten.mul_.Scalar,
    aten.div.Tensor: aten.div_.Tensor,
    aten.div.Scalar: aten.div_.Scalar,
    aten.addcmul.default: aten.addcmul_.default,
    aten.addmm.default: aten.addmm_.default,
    aten.baddbmm.default: aten.baddbmm_.default,
}
FUSED = {
    aten.mm.default: aten.addmm.default,
    aten.bmm.default: aten.baddbmm.default,
    aten.mul.Tensor: aten.addcmul.default,
}

NARROW = 128  # columns of rows that torch's backward pass of log-softmax takes one by one


def needed(operations: Sequence[Operation], result: Slot) -> list[Operation]:
    """Keep the operations that the result depends on."""
    wanted, kept = {result}, []
    for operation in reversed(operations):
        if wanted.intersection(operation.outputs):
            kept.append(operation)
            wanted.update(operation.inputs)
    return kept[::-1]


def reshaping(operations: Sequence[Operation]) -> list[Operation]:
    """Replace views by reshapes, which are the same where nothing is changed in place."""
    return [
        replace(o, function=RESHAPED[o.function]) if o.function in RESHAPED else o
        for o in operations
    ]


def without_views(
    operations: Sequence[Operation], kinds: Sequence[Kind], result: Slot
) -> list[Operation]:
    """Take out views of the same numbers: detached, of the same shape, or transposed twice."""
    stands_for: dict[Slot, Slot] = {}
    turned: dict[Slot, Slot] = {}  # what transposes are of
    kept = []
    for operation in operations:
        operation, same = _with_slots(operation, stands_for), None
        source, output = next(iter(operation.inputs), None), operation.outputs[0]
        if source is not None and output is not None and output != result:
            if operation.function is aten.t.default:
                same, turned[output] = turned.get(source), source
            elif operation.function in ALIKE and kinds[source] == kinds[output]:
                same = source
        if same is None or output is None:
            kept.append(operation)
        else:
            stands_for[output] = same
    return kept


def narrow_softmax(operations: Sequence[Operation]) -> list[Operation]:
    """Pull back through the log-softmax of narrow rows by sums over all rows together."""
    changed = []
    for operation in operations:
        if operation.function is aten._log_softmax_backward_data.default and not operation.kwargs:
            gradient, output, dim, dtype = operation.args
            narrow = isinstance(output, Tensor) and output.ndim > 0 and output.dtype == dtype
            if narrow and isinstance(gradient, Slot) and output.shape[dim] <= NARROW:
                args = (gradient, output.exp(), dim)
                operation = replace(operation, function=_through_softmax, args=args)
        changed.append(operation)
    return changed


def _through_softmax(gradient: Tensor, p: Tensor, dim: int) -> Tensor:
    return torch.addcmul(gradient, p, gradient.sum(dim, keepdim=True), value=-1)


def _with_slots(operation: Operation, stands_for: dict[Slot, Slot]) -> Operation:
    if stands_for.keys().isdisjoint(operation.inputs):
        return operation

    def through(leaf: Any) -> Any:
        return stands_for.get(leaf, leaf) if isinstance(leaf, Slot) else leaf

    args = tuple(map_leaves(through, part) for part in operation.args)
    kwargs = {name: map_leaves(through, part) for name, part in operation.kwargs.items()}
    return replace(operation, args=args, kwargs=kwargs)


@dataclass(frozen=True)
class Uses:
    """The operation that makes every result, and those that use it."""

    maker: dict[Slot, int]
    users: dict[Slot, list[int]]

    @classmethod
    def of(cls, operations: Sequence[Operation]) -> Uses:
        """Go over the operations once."""
        maker: dict[Slot, int] = {}
        users: dict[Slot, list[int]] = {}
        for place, operation in enumerate(operations):
            for slot in operation.inputs:
                users.setdefault(slot, []).append(place)
            maker.update((output, place) for output in operation.outputs if output is not None)
        return cls(maker, users)


def fused(operations: Sequence[Operation], kinds: Sequence[Kind], result: Slot) -> list[Operation]:
    """Join a product that is only added to something with that sum."""
    uses, changed = Uses.of(operations), list(operations)
    gone: set[int] = set()
    for place, operation in enumerate(operations):
        for summand, product in _sums(operation):
            origin = uses.maker.get(product) if isinstance(product, Slot) else None
            if origin is None or origin in gone or product == result:
                continue
            one = _as_one(changed[origin], summand, operation, kinds)
            if one is not None and uses.users[product] == [place]:
                changed[place] = one
                gone.add(origin)
                break
    return [operation for place, operation in enumerate(changed) if place not in gone]


def _sums(operation: Operation) -> list[tuple[Any, Any]]:
    """The two terms of a sum, in each order in which they may be looked at."""
    if len(operation.args) != 2 or operation.kwargs:
        return []
    first, second = operation.args
    if operation.function is aten.add.Tensor:
        return [(first, second), (second, first)]
    return [(first, second)] if operation.function is aten.sub.Tensor else []


def _as_one(
    factors: Operation, summand: Any, total: Operation, kinds: Sequence[Kind]
) -> Operation | None:
    """The sum of a product as one operation, where shapes and dtypes allow it."""
    function = FUSED.get(factors.function)
    if function is None or factors.kwargs or len(factors.args) != 2:
        return None
    minus = total.function is aten.sub.Tensor
    of_summand, of_product, of_total, *of_factors = (
        _kind(part, kinds)
        for part in (summand, factors.outputs[0], total.outputs[0], *factors.args)
    )
    same = of_summand == of_product == of_total
    if not same or None in of_factors or len({kind[1] for kind in of_factors if kind}) > 1:
        return None
    if minus and function is not aten.addcmul.default:
        return None
    kwargs = {"value": -1} if minus else {}
    return Operation(function, (summand, *factors.args), kwargs, total.outputs, several=False)


def _kind(part: Any, kinds: Sequence[Kind]) -> Kind | None:
    if isinstance(part, Slot):
        return kinds[part]
    return (part.shape, part.dtype) if isinstance(part, Tensor) else None


def in_place(
    operations: Sequence[Operation], kinds: Sequence[Kind], result: Slot
) -> list[Operation]:
    """Write results over arguments of the same kind that nothing needs any more."""
    uses, changed = Uses.of(operations), []
    for place, operation in enumerate(operations):
        function, output = IN_PLACE.get(operation.function), operation.outputs[0]
        for args in _orders(operation) if function is not None and output is not None else ():
            target = args[0]
            if (
                isinstance(target, Slot)
                and kinds[target] == kinds[output]
                and _last(place, target, operations, uses)
                and target != result
                and _has_memory_of_its_own(target, operations, uses)
            ):
                operation = replace(operation, function=function, args=args)
                break
        changed.append(operation)
    return changed


def _last(place: int, slot: Slot, operations: Sequence[Operation], uses: Uses) -> bool:
    """Whether an operation uses a result once, after all others, which leave no view of it."""
    *others, last = uses.users[slot]
    return last == place not in others and not any(operations[other].shares for other in others)


def _orders(operation: Operation) -> list[tuple[Any, ...]]:
    swappable = operation.function in (aten.add.Tensor, aten.mul.Tensor) and not operation.kwargs
    return [operation.args, operation.args[::-1]] if swappable else [operation.args]


def _has_memory_of_its_own(slot: Slot, operations: Sequence[Operation], uses: Uses) -> bool:
    """Whether the operation that makes a result allocates memory for it."""
    maker = uses.maker.get(slot)
    return maker is not None and not operations[maker].shares
