"""A function of a vector, recorded once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lossgeom.autodiff.recorded_products.operation import Operation, Slot
from lossgeom.autodiff.recorded_products.recorder import Kind, NotRecordable, Recorder
from lossgeom.autodiff.recorded_products.replay import Program
from lossgeom.autodiff.recorded_products.scalings import scaled
from lossgeom.autodiff.recorded_products.simplify import (
    fused,
    in_place,
    narrow_softmax,
    needed,
    reshaping,
    without_views,
)


@dataclass(frozen=True, eq=False)
class Tape:
    """The operations that lead from a vector to a function of it, most often a linear one.

    What does not depend on the vector is held as constants, so a replay of a linear function
    costs what that costs, and not what it took to get there.

    Attributes:
        operations: those needed, in order; the input is slot 0.
        kinds: shape and dtype of every slot.
        result: the slot that is returned.

    >>> x = torch.tensor([2.0, 3.0])
    >>> tape, _ = record(lambda v: x.exp() * v + v, torch.ones(2))
    >>> len(tape.operations), tape(torch.tensor([1.0, 0.0]))
    (2, tensor([8.3891, 0.0000]))
    """

    operations: Sequence[Operation]
    kinds: Sequence[Kind]
    result: Slot

    @cached_property
    def storages(self) -> dict[int, int]:
        """Bytes that the constants take, by the memory that they are in."""
        storages = (
            constant.untyped_storage()
            for operation in self.operations
            for constant in operation.constants()
        )
        return {storage._cdata: storage.nbytes() for storage in storages}

    @cached_property
    def program(self) -> Program:
        """What a replay does, step by step."""
        operations = fused(self.operations, self.kinds, self.result)
        return Program(in_place(operations, self.kinds, self.result), len(self.kinds), self.result)

    def __call__(self, v: Tensor) -> Tensor:
        """Evaluate the function at another vector of the same shape."""
        with torch.no_grad():
            return self.program(v)


def record(function: Callable[[Tensor], Tensor], v: Tensor) -> tuple[Tape, Tensor]:
    """Call a function, and keep what it did with v.

    It sees what PyTorch does, and not what NumPy or Python make of a tensor's memory.

    Args:
        function: may do anything that does not depend on v; what does is recorded.
        v: any vector; replays take others of its shape.

    Returns:
        The tape, and the function of v. It is called once.

    Raises:
        NotRecordable: where a replay could differ from another call of the function.

    >>> tape, value = record(lambda v: 3 * v, torch.ones(2))
    >>> value.tolist(), tape(torch.tensor([1.0, 2.0])).tolist()
    ([3.0, 3.0], [3.0, 6.0])
    """
    with torch.no_grad():
        v = v.detach().clone()  # an object of its own, which nothing else can know
    with Recorder(v) as recorder:
        value = function(v)
    result = recorder.slot(value)
    if result is None:
        raise NotRecordable("the result does not depend on the input")
    operations = without_views(reshaping(recorder.operations), recorder.kinds, result)
    operations = needed(operations, result)
    operations = scaled(narrow_softmax(operations), recorder.kinds, result)
    return Tape(operations, tuple(recorder.kinds), result), value.detach()
