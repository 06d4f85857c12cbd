"""A recorder of all called operators that depend on an input."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import TensorWeakRef

from lossgeom.autodiff.recorded_products.deferred import Deferred
from lossgeom.autodiff.recorded_products.operation import (
    Operation,
    Slot,
    bare,
    map_leaves,
    storage_of,
)

aten = torch.ops.aten
Kind = tuple[torch.Size, torch.dtype]
Places = tuple[tuple[int, str], ...]


class NotRecordable(Exception):  # noqa: N818 - it is no error, the caller goes another way
    """An operation that cannot be replayed."""


# What these return depends on the shapes of their arguments only.
VALUE_FREE = {
    aten.zeros_like.default,
    aten.ones_like.default,
    aten.full_like.default,
    aten.empty_like.default,
    aten.new_zeros.default,
    aten.new_ones.default,
    aten.new_full.default,
    aten.new_empty.default,
    aten.new_empty_strided.default,
    aten.is_same_size.default,
    aten._has_same_storage_numel.default,
}
NO_MEMORY = aten._efficientzerotensor.default
ZEROS = {aten.zeros_like.default, aten.new_zeros.default, aten.zeros.default, NO_MEMORY}

SUMS = {  # whether what is added to may be the zero
    aten.add.Tensor: True,
    aten.add_.Tensor: True,
    aten.sub.Tensor: False,
    aten.sub_.Tensor: False,
}


class FunctionKind(NamedTuple):
    """What an operator does.

    Attributes:
        value_free: whether what it returns depends on shapes only.
        zeros: whether it returns zeros.
        returns_views: whether it declares that it returns views; some do not, and return them.
        written: places and names of the arguments that it changes.
    """

    value_free: bool
    zeros: bool
    returns_views: bool
    written: Places


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A mode that records the operations that depend on an input.

    What is computed without the input is computed once, now, and is a constant of the recording.
    Changes in place become results of their own. What cannot be told apart with certainty, such as
    memory shared by a constant and a result, is refused.

    Attributes:
        operations: what was recorded, in order.
        kinds: shape and dtype of every result, the input first.
    """

    def __init__(self, input: Tensor) -> None:  # noqa: A002
        TorchDispatchMode.__init__(self)  # type: ignore[no-untyped-call]
        self.operations: list[Operation] = []
        self.kinds: list[Kind] = []
        self._known: dict[int, tuple[TensorWeakRef, Slot]] = {}  # by id, if it is still alive
        self._sharing: dict[int, list[TensorWeakRef]] = {}  # results by storage
        self._constants: set[int] = set()  # storages
        self._zeros: dict[int, TensorWeakRef] = {}  # by storage
        self._held: dict[int, tuple[TensorWeakRef, Tensor]] = {}  # constants, by id
        self._deferred = Deferred()
        self._input_storage = storage_of(input)
        self._new_slot(input)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Keep the compiler out of this, which takes seconds to import."""
        return False

    def slot(self, tensor: Any) -> Slot | None:
        """The place of a tensor in the recording; ``None`` if it does not depend on the input."""
        found = self._known.get(id(tensor))
        return found[1] if found is not None and found[0]() is tensor else None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, kind = kwargs or {}, _kind_of(func)
        depends = not kind.value_free and self._depends((*args, *kwargs.values()))
        if kind.written:
            self._check_change(func, kind.written, args, kwargs, depends)
        if depends:
            self._deferred.before((*args, *kwargs.values()), ())
            return self._recorded(func, kind, args, kwargs)
        if func is NO_MEMORY:  # kernels read its null pointer in a dispatch mode
            result = torch.zeros((), **kwargs).expand(args[0])
        else:
            result = self._deferred.call(func, args, kwargs, kind.value_free or kind.returns_views)
        if kind.zeros:
            self._zeros[storage_of(result)] = TensorWeakRef(result)
        return result

    def _depends(self, arguments: Any) -> bool:
        depends = False
        for leaf in arguments:
            if isinstance(leaf, (list, tuple)):
                depends |= self._depends(leaf)
            elif isinstance(leaf, Tensor):
                if self.slot(leaf) is not None:
                    depends = True
                elif self._is_shared(storage_of(leaf)):
                    raise NotRecordable("a constant shares its memory with a result")
        return depends

    def _check_change(
        self, func: Any, written: Places, args: Any, kwargs: Any, depends: bool
    ) -> None:
        changed = [args[i] if i < len(args) else kwargs.get(name) for i, name in written]
        for tensor in changed:
            if not isinstance(tensor, Tensor):
                raise NotRecordable(f"{func} changes a list of tensors")
            storage = storage_of(tensor)
            self._zeros.pop(storage, None)
            self._deferred.before((), (tensor,))
            if storage in self._constants:
                raise NotRecordable(f"{func} changes a constant of the recording")
            if not depends:
                continue
            alone = len(self._alive(storage)) == 1 and self.slot(tensor) is not None
            if not alone or storage == self._input_storage or len(changed) > 1:
                raise NotRecordable(f"{func} changes what other tensors share")

    def _recorded(self, func: Any, kind: FunctionKind, args: Any, kwargs: Any) -> Any:
        same = self._beside_zero(func, args, kwargs)
        if same is not None:
            result = func(*args, **kwargs)
            self._place(result, same)
            return result
        given = tuple(map_leaves(self._argument, part) for part in args)
        named = {name: map_leaves(self._argument, part) for name, part in kwargs.items()}
        result = func(*args, **kwargs)
        several = isinstance(result, (tuple, list))
        parts = result if several else (result,)
        if not all(part is None or isinstance(part, Tensor) for part in parts):
            raise NotRecordable(f"{func} takes a number out of a tensor")
        if kind.written:
            func = _out_of_place(func)
            kind = _kind_of(func)
            self._sharing.pop(storage_of(result), None)
        shares = kind.returns_views or any(
            self._is_shared(storage_of(part)) for part in parts if part is not None
        )
        outputs = tuple(None if part is None else self._new_slot(part) for part in parts)
        self.operations.append(Operation(func, given, named, outputs, several, shares))
        return result

    def _beside_zero(self, func: Any, args: Any, kwargs: Any) -> Slot | None:
        """What a sum with a constant that is zero is the same as."""
        if func not in SUMS or len(args) != 2 or kwargs:
            return None
        pairs = [args, args[::-1]] if SUMS[func] else [args]
        for other, zero in pairs:
            if isinstance(other, Tensor) and isinstance(zero, Tensor):
                same_type = torch.result_type(other, zero) == other.dtype
                if same_type and _fits(zero.shape, other.shape) and self._is_zero(zero):
                    return self.slot(other)
        return None

    def _is_zero(self, part: Tensor) -> bool:
        if self.slot(part) is not None:
            return False
        known = self._zeros.get(storage_of(part))
        return (known is not None and known() is not None) or not part.any()

    def _argument(self, leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        slot = self.slot(leaf)
        if slot is not None:
            return slot
        self._constants.add(storage_of(leaf))
        found = self._held.get(id(leaf))
        if found is None or found[0]() is not leaf:
            found = self._held[id(leaf)] = TensorWeakRef(leaf), bare(leaf)
        return found[1]

    def _new_slot(self, tensor: Tensor) -> Slot:
        slot = Slot(len(self.kinds))
        self.kinds.append((tensor.shape, tensor.dtype))
        self._place(tensor, slot)
        return slot

    def _place(self, tensor: Tensor, slot: Slot) -> None:
        reference = TensorWeakRef(tensor)
        self._known[id(tensor)] = (reference, slot)
        storage = storage_of(tensor)
        self._sharing[storage] = [*self._alive(storage), reference]

    def _alive(self, storage: int) -> list[TensorWeakRef]:
        """Recorded results in some memory that still exist."""
        return [ref for ref in self._sharing.get(storage, ()) if ref() is not None]

    def _is_shared(self, storage: int) -> bool:
        return storage in self._sharing and bool(self._alive(storage))


def _fits(shape: torch.Size, other: torch.Size) -> bool:
    """Whether a tensor of the first shape is broadcast to the second."""
    pairs = zip(reversed(shape), reversed(other), strict=False)
    return len(shape) <= len(other) and all(n in (1, m) for n, m in pairs)


@cache
def _kind_of(func: Any) -> FunctionKind:
    """Find what an operator does, once for all of its calls."""
    schema = func._schema
    return FunctionKind(
        func in VALUE_FREE,
        func in ZEROS,
        any(returned.alias_info is not None for returned in schema.returns),
        tuple(
            (place, argument.name)
            for place, argument in enumerate(schema.arguments)
            if argument.alias_info is not None and argument.alias_info.is_write
        ),
    )


@cache
def _out_of_place(func: Any) -> Any:
    """Find the operator that returns what another one writes into its first argument."""
    name = func._schema.name.removeprefix("aten::")
    packet = getattr(aten, name.removesuffix("_"), None)
    overload = getattr(packet, func._overloadname, None)
    if not name.endswith("_") or overload is None or _kind_of(func).written[0][0] != 0:
        raise NotRecordable(f"{func} has no variant that leaves its arguments alone")
    return overload
