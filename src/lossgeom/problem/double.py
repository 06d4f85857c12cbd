"""Models that say float32 on their way, measured in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

T = TypeVar("T")


@dataclass
class InDouble:
    """Calls a model in float64 throughout where it says float32, as it shows in its first call.

    Such a model does not run in float64, because it mixes types, or it rounds on its way.

    Attributes:
        needed: whether it does; known after the first call.
    """

    needed: bool | None = None

    def __call__(self, call: Callable[..., T], *args: Any) -> T:
        """What a call returns, if need be at the second or third attempt."""
        if self.needed is None:
            try:
                with _Notice() as notice:
                    found = call(*args)
            except RuntimeError:  # of torch, about types that do not fit, or about something else
                return self._tried(call, *args)
            self.needed = notice.said
            if not self.needed:
                return found
        if not self.needed:
            return call(*args)
        with in_double(torch.float64):
            return call(*args)

    def _tried(self, call: Callable[..., T], *args: Any) -> T:
        try:
            with in_double(torch.float64):
                found = call(*args)
        except RuntimeError:
            return call(*args)  # for the error as it is
        self.needed = True
        return found


class _Notice(TorchFunctionMode):
    """Notices whether float32 is said."""

    said = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = (*args, *(kwargs or {}).values())
        found = func(*args, **(kwargs or {}))
        by_default = isinstance(found, Tensor) and found.dtype == torch.float32  # it may be
        if by_default or func is Tensor.float or any(part is torch.float32 for part in given):
            self.said = True
        return found


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
