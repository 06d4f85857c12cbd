"""What hooks and modules can write to, noted down before they run and put back after."""

from __future__ import annotations

import dis
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Names = frozenset[str]
ATOMS = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size)
OURS = {"torch", "numpy", "lossgeom"}  # whose functions keep nothing for a hook
LIBRARIES = OURS | (set(sys.stdlib_module_names) - {"__main__"})
OF_EVERY_MODULE = frozenset(vars(nn.Module()))
IMPLICIT = frozenset({"__call__", "__setitem__", "__getitem__", "__iadd__", "__setattr__"})
ANY_NAME = {"setattr", "delattr", "vars", "__dict__"}  # what names attributes by strings
DEPTH = 12  # of containers in objects in containers
MANY = 10_000  # elements, more are data: they are put back, and not looked into
TENSOR_BYTES = 64 * 2**20  # of tensors that are copied, in case a hook changes them in place
MISSING = object()


class Written:
    """The state of all that functions can write to, as their code names it.

    It follows closures, global names, defaults, bound objects and the attributes that the code of
    the functions names, and from there lists, dictionaries, sets, arrays and tensors.

    Args:
        functions: that may write.
        attributes: things that may be written to wherever they are reached.
    """

    def __init__(self, functions: Iterable[Any] = (), attributes: Iterable[Any] = ()) -> None:
        self._undo: list[Callable[[], None]] = []
        self._seen: dict[tuple[int, Names | None], Any] = {}  # alive, so that ids stay theirs
        self._bytes = 0
        for function in functions:
            self._note(function, IMPLICIT, DEPTH)
        for thing in attributes:
            self._note(thing, None, DEPTH)

    def put_back(self) -> None:
        """Undo what has changed since."""
        for undo in self._undo:
            undo()

    def _note(self, thing: Any, names: Names | None, depth: int) -> None:
        """Note a thing down; without names, all of its attributes, but no functions."""
        if isinstance(thing, ATOMS) or not depth or (id(thing), names) in self._seen:
            return
        self._seen[id(thing), names] = thing
        for part, its_names in self._parts(thing, names):
            self._note(part, its_names, depth - 1)

    def _parts(self, thing: Any, names: Names | None) -> Iterator[tuple[Any, Names | None]]:
        if isinstance(thing, (list, deque, dict, set, tuple, frozenset)):
            yield from ((part, names) for part in self._of_container(thing))
        elif isinstance(thing, (Tensor, np.ndarray)):
            if names is not None:
                self._note_numbers(thing)
        elif isinstance(thing, nn.Module):
            if names is not None:  # a module of the user's; the copy's own are noted at once
                yield from self._of_module(thing, names)
        elif names is not None and isinstance(thing, (FunctionType, MethodType, partial)):
            yield from self._of_callable(thing, names)
        else:
            yield from self._of_object(thing, names)

    def _of_container(self, thing: Any) -> list[Any]:
        if isinstance(thing, dict):
            self._undo.append(partial(_put_back_dict, thing, dict(thing)))
            return list(thing.values()) if len(thing) <= MANY else []
        if isinstance(thing, (list, deque, set)):
            before = set(thing) if isinstance(thing, set) else list(thing)
            self._undo.append(partial(_put_back_items, thing, before))
        return list(thing) if len(thing) <= MANY else []

    def _of_callable(self, thing: Any, names: Names) -> Iterator[tuple[Any, Names]]:
        if isinstance(thing, FunctionType):
            yield from self._of_function(thing, names)
        elif isinstance(thing, MethodType):
            yield thing.__func__, names
            yield thing.__self__, names | _names(thing.__func__)
        else:
            yield from ((part, names) for part in (thing.func, thing.args, thing.keywords))

    def _of_function(self, function: FunctionType, names: Names) -> Iterator[tuple[Any, Names]]:
        if _package(function) in OURS:
            return
        own = _code_names(function.__code__)
        names = names | own
        for cell in function.__closure__ or ():
            before = _content(cell)
            self._undo.append(partial(_put_back_cell, cell, before))
            yield before, names
        reached = [function.__globals__[n] for n in own if n in function.__globals__]
        self._note_names(function.__globals__, _written_globals(function.__code__))
        for thing in reached:
            if not isinstance(thing, ModuleType):
                yield thing, names
            elif _top(thing.__name__) not in LIBRARIES:
                self._note_names(vars(thing), own)
                yield from ((vars(thing)[n], names) for n in own if n in vars(thing))
        yield function.__defaults__, names
        yield function.__kwdefaults__, names
        yield vars(function), names

    def _of_module(self, module: nn.Module, names: Names) -> Iterator[tuple[Any, Names]]:
        """Yield what the code names of a module and of all modules inside it."""
        for part in module.modules():
            for where in (vars(part), part._buffers):
                named = self._note_attributes(where, names)
                yield from ((where[n], names) for n in named if n in where)

    def _of_object(self, thing: Any, names: Names | None) -> Iterator[tuple[Any, Names | None]]:
        kind = thing if isinstance(thing, type) else type(thing)
        if isinstance(thing, ModuleType) or _package(kind) in OURS:
            return
        if names is not None:
            methods = [vars(k)[n] for k in kind.__mro__ for n in names if n in vars(k)]
            functions = [m for m in methods if isinstance(m, FunctionType)]
            if _package(kind) not in LIBRARIES:
                yield from ((function, names) for function in functions)
            names = names.union(*map(_names, functions))
        if isinstance(thing, type):
            yield from self._of_class(thing, names or frozenset())
            return
        own = getattr(thing, "__dict__", None)
        if isinstance(own, dict):
            named = self._note_attributes(own, names)
            yield from ((own[n], names) for n in named if n in own)
        for name in _slots(kind):
            before = getattr(thing, name, MISSING)
            self._undo.append(partial(_put_back_attribute, thing, name, before))
            yield before, names

    def _of_class(self, kind: type, names: Names) -> Iterator[tuple[Any, Names]]:
        if _package(kind) in LIBRARIES:
            return
        for name in names - IMPLICIT:
            before = vars(kind).get(name, MISSING)
            self._undo.append(partial(_put_back_attribute, kind, name, before))
            yield before, names

    def _note_attributes(self, own: dict[str, Any], names: Names | None) -> Names:
        """Note the attributes that code may write, also new ones."""
        if names is None or names & ANY_NAME:
            self._undo.append(partial(_put_back_dict, own, dict(own)))
            return frozenset(own) - OF_EVERY_MODULE
        names = names - OF_EVERY_MODULE
        self._note_names(own, names)
        return names

    def _note_names(self, where: dict[str, Any], names: Iterable[str]) -> None:
        before = {name: where.get(name, MISSING) for name in names}
        self._undo.append(partial(_put_back_names, where, before))

    def _note_numbers(self, thing: Tensor | np.ndarray) -> None:
        if isinstance(thing, nn.Parameter) or (isinstance(thing, Tensor) and thing.requires_grad):
            return
        self._bytes += thing.nbytes
        if self._bytes <= TENSOR_BYTES:
            self._undo.append(partial(_put_back_numbers, thing, _copied(thing)))


def _package(thing: Any) -> str:
    return _top(getattr(thing, "__module__", None) or "")


def _top(name: str) -> str:
    return name.partition(".")[0]


def _names(function: Any) -> Names:
    return _code_names(function.__code__) if isinstance(function, FunctionType) else frozenset()


@lru_cache(maxsize=1024)
def _code_names(code: CodeType) -> Names:
    """All names of globals and attributes in a function and those inside it."""
    inner = [_code_names(c) for c in code.co_consts if isinstance(c, CodeType)]
    return frozenset(code.co_names).union(*inner)


@lru_cache(maxsize=1024)
def _written_globals(code: CodeType) -> Names:
    inner = [_written_globals(c) for c in code.co_consts if isinstance(c, CodeType)]
    own = {i.argval for i in dis.get_instructions(code) if i.opname == "STORE_GLOBAL"}
    return frozenset(own).union(*inner)


def _slots(kind: type) -> Iterator[str]:
    for parent in kind.__mro__:
        if _package(parent) not in LIBRARIES:
            slots = vars(parent).get("__slots__", ())
            names = [slots] if isinstance(slots, str) else slots
            yield from (name for name in names if not name.startswith("__"))


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it is empty
        return MISSING


def _put_back_cell(cell: Any, before: Any) -> None:
    if _content(cell) is not before:
        if before is MISSING:
            del cell.cell_contents
        else:
            cell.cell_contents = before


def _put_back_items(now: Any, before: Any) -> None:
    is_set = isinstance(now, set)
    changed = (
        now != before
        if is_set
        else len(now) != len(before) or any(a is not b for a, b in zip(now, before, strict=True))
    )
    if changed:
        now.clear()
        (now.update if is_set else now.extend)(before)


def _put_back_dict(now: dict[Any, Any], before: dict[Any, Any]) -> None:
    for key in [key for key in now if key not in before]:
        del now[key]
    _put_back_names(now, before)


def _put_back_names(now: dict[Any, Any], before: dict[Any, Any]) -> None:
    for key, value in before.items():
        if now.get(key, MISSING) is not value:
            if value is MISSING:
                del now[key]
            else:
                now[key] = value


def _put_back_attribute(thing: Any, name: str, before: Any) -> None:
    now = (
        vars(thing).get(name, MISSING) if isinstance(thing, type) else getattr(thing, name, MISSING)
    )
    if now is not before:
        if before is MISSING:
            delattr(thing, name)
        else:
            setattr(thing, name, before)


def _copied(thing: Any) -> tuple[Any, int]:
    if isinstance(thing, np.ndarray):
        return thing.copy(), 0
    return thing.clone(), 0 if thing.is_inference() else thing._version


def _put_back_numbers(now: Any, before: tuple[Any, int]) -> None:
    content, version = before
    if isinstance(now, np.ndarray):
        np.copyto(now, content)
    elif now.is_inference() or now._version != version:
        with torch.inference_mode(now.is_inference()), torch.no_grad():
            now.copy_(content)
