"""Short representations of objects that hold tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

FEW = 6  # numbers or members that are shown one by one


def short(thing: Any) -> str:
    """One line for a dataclass, with few numbers of each tensor, or its shape and range.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Norms:
    ...     values: Tensor
    ...     known: Tensor
    ...     vectors: Tensor
    ...     __repr__ = short
    >>> Norms(torch.arange(10.0) / 3, torch.arange(10) > 1, torch.ones(10, 2))
    Norms(values=(10,) from 0 to 3, known=8 of 10, vectors=(10, 2))
    >>> Norms(torch.tensor([2.5, 1.0]), torch.tensor([True]), torch.ones(10, 2))
    Norms(values=[2.5, 1], known=[True], vectors=(10, 2))
    """
    shown = ((part.name, getattr(thing, part.name)) for part in _fields(thing))
    return f"{type(thing).__name__}({', '.join(f'{name}={_part(value)}' for name, value in shown)})"


def _fields(thing: Any) -> list[dataclasses.Field[Any]]:
    return [part for part in dataclasses.fields(thing) if part.repr]


def _part(value: Any) -> str:
    if isinstance(value, Tensor):
        return _tensor(value.detach())
    if isinstance(value, (Mapping, tuple, list)) and len(value) > FEW:
        return f"<{len(value)} of them>"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {_part(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (tuple, list)):
        return "(" + ", ".join(map(_part, value)) + ")"
    return f"{value:.6g}" if isinstance(value, float) else repr(value)


def _tensor(values: Tensor) -> str:
    if values.ndim == 0:
        return _part(values.item())
    if values.ndim == 1 and len(values) <= FEW:
        return "[" + ", ".join(map(_part, values.tolist())) + "]"
    shape = str(tuple(values.shape))
    if values.dtype == torch.bool:
        return f"{int(values.sum())} of {values.numel()}"
    if values.ndim > 1 or values.is_complex():
        return shape
    return f"{shape} from {_part(values.min().item())} to {_part(values.max().item())}"
