"""Recorded operations that multiply each number by a constant, joined in one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lossgeom.autodiff.recorded_products.operation import Operation, Slot
from lossgeom.autodiff.recorded_products.recorder import Kind
from lossgeom.autodiff.recorded_products.simplify import Uses

aten = torch.ops.aten
MUL = aten.mul.Tensor
# Of smooth activations, whose slope takes the place of what it is computed from. A ReLU's is read
# from its results, which the next layer holds anyway.
SLOPES = {
    aten.tanh_backward.default,
    aten.sigmoid_backward.default,
    aten.gelu_backward.default,
    aten.silu_backward.default,
    aten.softplus_backward.default,
}


def scaled(operations: Sequence[Operation], kinds: Sequence[Kind], result: Slot) -> list[Operation]:
    """Multiply by slopes of activations that are computed once, and by one product of factors."""
    uses, changed = Uses.of(operations), list(operations)
    slopes: dict[Any, Tensor] = {}
    gone: set[int] = set()
    for place, operation in enumerate(operations):
        source, factor = _factor(operation, kinds, slopes)
        if source is None:
            continue
        origin = uses.maker.get(source)
        if origin is not None and uses.users[source] == [place] and source != result:
            before, other = _factor(changed[origin], kinds, slopes)
            if before is not None and (both := other * factor).isfinite().all():
                gone.add(origin)
                source, factor = before, both
        changed[place] = replace(operation, function=MUL, args=(source, factor), kwargs={})
    return [operation for place, operation in enumerate(changed) if place not in gone]


def _factor(operation: Operation, kinds: Sequence[Kind], slopes: dict[Any, Tensor]) -> Any:
    """The result that an operation scales, and what it multiplies it by; None if it does not."""
    (first, *others), (output, *_) = operation.args, operation.outputs
    if operation.function is MUL and not operation.kwargs:
        source, factor = (first, *others) if isinstance(first, Slot) else (*others, first)
    elif operation.function in SLOPES and not any(isinstance(part, Slot) for part in others):
        source = first
        held = [id(part) if isinstance(part, Tensor) else part for part in others]
        key = (operation.function, *held, *operation.kwargs.items())
        if key not in slopes:
            ones = torch.ones_like(others[0])
            slopes[key] = operation.function(ones, *others, **operation.kwargs)
        factor = slopes[key]
    else:
        return None, None
    if not isinstance(factor, Tensor) or output is None or kinds[source] != kinds[output]:
        return None, None
    alike = factor.ndim > 0 and factor.dtype == kinds[output][1]
    return (source, factor) if alike else (None, None)
