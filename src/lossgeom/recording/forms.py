"""Reading JSON by type hints: a value of another type is an error in words."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from lossgeom.messages.wording import printable, unknown

LARGEST = 2**53  # whole numbers up to here are read alike by every reader of JSON
DEEPEST = 32  # levels of nesting

ARRAY = re.compile(r"[A-Za-z0-9_-]+")
ArrayName = Annotated[str, ARRAY]


def parse(hint: Any, value: Any, at: str = "", *, others: bool = False) -> Any:
    """Turn a value from JSON into what a type hint says.

    Args:
        hint: a dataclass, ``str``, ``bool``, ``int``, ``float``, ``dict``, ``Any``, a tuple or
            mapping of these, one of them or None, ``Literal`` of names, or ``Annotated[str, ...]``
            with a pattern or with the names to choose from.
        value: what JSON holds.
        at: where that stands, for the error.
        others: let an object have keys that are not fields of the dataclass.

    Raises:
        ValueError: where it is something else, in words.

    >>> parse(tuple[float, ...], [1.5, "inf"])
    (1.5, inf)
    >>> parse(tuple[int, ...], [1, "two"])
    Traceback (most recent call last):
    ValueError: expected a whole number at [1], found 'two'
    """
    if not at and _is_deep(value):
        raise ValueError("it is nested too deeply")
    origin, inside = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, UnionType):
        return None if value is None else parse(inside[0], value, at)
    if is_dataclass(hint) and isinstance(value, dict):
        return _parse_fields(hint, value, at, others)
    if origin in (Mapping, dict) and isinstance(value, dict):
        return {key: parse(inside[1], item, f"{at}.{key}") for key, item in value.items()}
    if origin is tuple and isinstance(value, list):
        hints = inside[:1] * len(value) if inside[-1] is ... else inside
        if len(hints) == len(value):
            items = enumerate(zip(hints, value, strict=True))
            return tuple(parse(of, item, f"{at}[{i}]") for i, (of, item) in items)
    if not _is_one(hint, value):
        shown = printable(repr(value)[:40])
        raise ValueError(f"expected {_words(hint)}{_place(at)}, found {shown}")
    return number(value) if hint is float else value


def _parse_fields(kind: Any, value: dict[str, Any], at: str, others: bool) -> Any:
    hints, start = _hints(kind), f"{at}." if at else ""
    for field in fields(kind):
        if field.name not in value and field.default is field.default_factory is MISSING:
            raise ValueError(f"{printable(start)}{field.name} is missing")
    for key in () if others else value:
        if key not in hints:
            raise ValueError(unknown(f"key{_place(at)}", printable(key), hints))
    names = [name for name in hints if name in value]
    return kind(**{name: parse(hints[name], value[name], f"{start}{name}") for name in names})


@cache
def _hints(kind: Any) -> dict[str, Any]:
    """The type hints of a dataclass's fields."""
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in fields(kind)}


def number(value: Any) -> Any:
    """Turn a string for a number that is not finite into that number; keep anything else.

    >>> number("-inf"), number(2.5)
    (-inf, 2.5)
    """
    return float(value) if value in ("nan", "inf", "-inf") else value


CHECKS: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    str: ("text", lambda value: isinstance(value, str)),
    bool: ("true or false", lambda value: isinstance(value, bool)),
    dict: ("an object", lambda value: isinstance(value, dict)),
    int: ("a whole number", lambda value: type(value) is int and abs(value) <= LARGEST),
    float: ("a number", lambda value: type(number(value)) is float or _is_small(value)),
}


def _is_one(hint: Any, value: Any) -> bool:
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) is not Annotated:
        return hint in CHECKS and CHECKS[hint][1](value)
    (known,) = hint.__metadata__
    is_known = known.fullmatch if isinstance(known, re.Pattern) else known.__contains__
    return isinstance(value, str) and bool(is_known(value))


def _is_small(value: Any) -> bool:
    """Whether it is a whole number that a float can be near to."""
    return type(value) is int and abs(value) <= sys.float_info.max


def _is_deep(value: Any, depth: int = 0) -> bool:
    if depth > DEEPEST:
        return True
    inside = value.values() if isinstance(value, dict) else value
    return isinstance(value, (dict, list)) and any(_is_deep(item, depth + 1) for item in inside)


def _place(at: str) -> str:
    return f" at {printable(at)}" if at else ""


def _words(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return f"one of {', '.join(get_args(hint))}"
    if get_origin(hint) is Annotated:
        (known,) = hint.__metadata__
        pattern = isinstance(known, re.Pattern)
        return "a name of letters, digits, - and _" if pattern else f"one of {', '.join(known)}"
    if hint in CHECKS:
        return CHECKS[hint][0]
    return f"{'a list' if get_origin(hint) is tuple else 'an object'} of its form"
