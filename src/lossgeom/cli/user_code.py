"""Functions in the user's own files and modules, which a command line names and calls."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any, cast
from urllib.parse import quote

FORMS = "package.module:function or path/to/file.py:function"


class FactoryError(ValueError):
    """A function that was named cannot be found, or does not make what is expected of it."""


@contextmanager
def importable(*factories: str) -> Iterator[None]:
    """Import from the current directory and the folders of the named files, while inside.

    As ``python -m module`` and ``python file.py`` do. What is made inside should be used inside,
    too, because code may import when it runs.
    """
    before = list(sys.path)
    sources = [_parts(factory)[0] for factory in factories]
    folders = [str(Path(source).resolve().parent) for source in sources if _is_file(source)]
    sys.path[:0] = [os.getcwd(), *folders]
    try:
        yield
    finally:
        sys.path[:] = before


@contextmanager
def explained(what: str, but: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turn what the user's code raises into an error that says where it came from.

    Args:
        what: what was expected, such as ``"net.py:model to return"``.
        but: errors that explain themselves.

    Raises:
        FactoryError: with the user's own error as its cause.
    """
    try:
        yield
    except but:
        raise
    except (Exception, SystemExit) as error:  # scripts without a guard call sys.exit
        raise FactoryError(
            f"expected {what}, got {type(error).__name__}: {error}; --debug shows where"
        ) from error


def make(factory: str) -> Any:
    """Import a function by its name and call it without arguments.

    Inside :func:`importable`, so that the function is found where the user is.

    Args:
        factory: ``package.module:function`` or ``path/to/file.py:function``.

    Returns:
        Whatever the function returns.

    Raises:
        FactoryError: if there is no such function, or it needs arguments, or it raises.

    >>> make("collections:OrderedDict")
    OrderedDict()
    """
    source, name = _parts(factory)
    module = _executed(Path(source)) if _is_file(source) else _imported(source)
    if name not in vars(module):
        raise FactoryError(
            f"expected a function named {name} in {source}, found "
            f"{', '.join(_own_functions(module)) or 'no function'}"
        )
    function: Any = vars(module)[name]
    if not _is_function(function):
        raise FactoryError(
            f"expected {factory} to be a function, got {type(function).__name__}; write a "
            "function that returns it"
        )
    needed = _arguments_needed(function)
    if needed:
        raise FactoryError(
            f"expected {factory} to be called without arguments, but it needs "
            f"{', '.join(needed)}; give defaults, or write a function that calls it with them"
        )
    with explained(f"{factory} to return when it is called without arguments"):
        return function()


def _parts(factory: str) -> tuple[str, str]:
    source, _, name = factory.rpartition(":")
    if not (source and name):
        raise FactoryError(f"expected a function as {FORMS}, got {factory!r}")
    return source, name


def _is_file(source: str) -> bool:
    return source.endswith(".py")


def _imported(source: str) -> ModuleType:
    with explained(f"the module {source} to be imported"):
        try:
            return importlib.import_module(source)
        except ModuleNotFoundError as error:
            if not f"{source}.".startswith(f"{error.name}."):
                raise  # the module is there, and what it imports is not
            absent = error
    raise FactoryError(
        f"expected the module {source} to be installed or below {os.getcwd()}, found none named "
        f"{absent.name}; name the function as {FORMS}"
    ) from absent


def _executed(path: Path) -> ModuleType:
    """The module that a file makes, executed once however many functions of it are named."""
    if not path.is_file():
        raise FactoryError(
            f"expected a file at {path.resolve()}, found none; name the function as {FORMS}"
        )
    # no other file has this name, and it has no dots, which would make the module part of a package
    name = quote(os.fsencode(path.resolve())).replace(".", "%2E")
    if name in sys.modules:
        return sys.modules[name]
    loader = SourceFileLoader(name, str(path))
    module = module_from_spec(cast(ModuleSpec, spec_from_loader(name, loader)))
    sys.modules[name] = module  # where dataclasses and pickle look for it
    try:
        with explained(f"{path} to be imported"):
            loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _own_functions(module: ModuleType) -> list[str]:
    """The names of the functions and classes that a module defines."""
    own = module.__name__
    return sorted(
        name for name, value in vars(module).items()
        if _is_function(value) and getattr(value, "__module__", None) == own
    )  # fmt: skip


def _is_function(value: Any) -> bool:
    """Whether it is a function or a class; a model can be called, too, but with inputs."""
    return inspect.isroutine(value) or inspect.isclass(value)


def _arguments_needed(function: Callable[..., Any]) -> list[str]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # builtins that do not say
        return []
    any_number = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is p.empty and p.kind not in any_number]
