"""Torch functions that go on in float64 where a model says float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class _Double(TorchFunctionMode):
    """Lets a model go on in float64 where it says float32."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.float:
            return args[0].double()
        kwargs = kwargs or {}
        values = [torch.float64 if a is torch.float32 else a for a in (*args, *kwargs.values())]
        named = zip(kwargs, values[len(args) :], strict=True)
        return func(*values[: len(args)], **dict(named))


@contextmanager
def in_double(dtype: torch.dtype) -> Iterator[None]:
    """Let a model that is measured in float64 go on in it where it says float32."""
    if dtype != torch.float64:
        yield
        return
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        with _Double():
            yield
    finally:
        torch.set_default_dtype(before)


def doubled() -> bool:
    """Whether a model is being let go on in float64."""
    modes = torch.overrides._get_current_function_mode_stack()  # type: ignore[no-untyped-call]
    return any(isinstance(mode, _Double) for mode in modes)
