"""Models that say float32 on their way, measured in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

T = TypeVar("T")


class InDouble:
    """Calls a model in float64 throughout where it says float32, as it shows in its first call.

    Such a model does not run in float64, because it mixes types, or it rounds on its way.
    """

    def __init__(self) -> None:
        self.needed: bool | None = None  # known after the first call

    @property
    def calls(self) -> int:
        """How many a call can take: most of them the first time."""
        return 3 if self.needed is None else 1

    def __call__(self, call: Callable[[], T]) -> T:
        """What a call returns, if need be at the second or third attempt."""
        if self.needed is None:
            try:
                with _Notice() as notice:
                    found = call()
            except RuntimeError:  # of torch, about types that do not fit, or about something else
                return self._tried(call)
            self.needed = notice.said
            if not self.needed:
                return found
        if not self.needed:
            return call()
        with _throughout():
            return call()

    def _tried(self, call: Callable[[], T]) -> T:
        try:
            with _throughout():
                found = call()
        except RuntimeError:
            return call()  # for the error as it is
        self.needed = True
        return found


class _Notice(TorchFunctionMode):
    """Notices whether float32 is said."""

    said = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = (*args, *(kwargs or {}).values())
        if func is Tensor.float or any(part is torch.float32 for part in given):
            self.said = True
        found = func(*args, **(kwargs or {}))
        if isinstance(found, Tensor) and found.dtype == torch.float32:  # by default, it may be
            self.said = True
        return found


class _Double(TorchFunctionMode):
    """Lets a model go on in float64 where it says float32."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.float:
            return args[0].double()
        given = {key: _doubled(value) for key, value in (kwargs or {}).items()}
        return func(*map(_doubled, args), **given)


def _doubled(argument: Any) -> Any:
    return torch.float64 if argument is torch.float32 else argument


@contextmanager
def in_double(theta: Tensor) -> Iterator[None]:
    """Let a model in float64 go on in it where it says float32."""
    if theta.dtype != torch.float64:
        yield
        return
    with _throughout():
        yield


@contextmanager
def _throughout() -> Iterator[None]:
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        with _Double():
            yield
    finally:
        torch.set_default_dtype(before)
