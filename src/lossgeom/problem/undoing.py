"""What hooks and modules write when they are called, and putting it back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from torch import nn
from torch.nn.modules import module as all_modules

from lossgeom.problem.written import Written

GLOBAL_HOOKS = (
    "_global_forward_pre_hooks",
    "_global_forward_hooks",
    "_global_backward_pre_hooks",
    "_global_backward_hooks",
)


class Undoing:
    """Puts back what a private copy's modules keep of a call, and what its hooks write.

    Args:
        module: the copy, as nobody has called it.
    """

    def __init__(self, module: nn.Module) -> None:
        self._hooks = [
            hook
            for part in module.modules()
            for hooks in (part._forward_pre_hooks, part._forward_hooks)
            for hook in hooks.values()
        ]
        for part in module.modules():
            for hooks in (part._backward_pre_hooks, part._backward_hooks):
                for number, hook in hooks.items():
                    hooks[number] = hook if isinstance(hook, _Undone) else _Undone(hook)
        self._kept = Written()
        for part in module.modules():
            self._kept.note_module(part)
        self._active = False

    @contextmanager
    def undone(self) -> Iterator[None]:
        """Put everything back at the end of the outermost such context."""
        if self._active:
            yield
            return
        self._active = True
        try:
            with _put_back([*self._hooks, *_global_hooks()]):
                yield
        finally:
            self._active = False
            self._kept.put_back()


def global_hooks_undone() -> AbstractContextManager[None]:
    """Put back what hooks on all modules of the process write, in the end."""
    return _put_back(_global_hooks())


@contextmanager
def _put_back(functions: Iterable[Any]) -> Iterator[None]:
    written = Written(functions)
    try:
        yield
    finally:
        written.put_back()


def _global_hooks() -> Iterator[Any]:
    for name in GLOBAL_HOOKS:
        yield from getattr(all_modules, name).values()


class _Undone:
    """A backward hook that acts and leaves no trace: backward passes may run at any time."""

    def __init__(self, hook: Callable[..., Any]) -> None:
        self.hook = hook

    def __call__(self, *args: Any) -> Any:
        with _put_back([self.hook]):
            return self.hook(*args)
