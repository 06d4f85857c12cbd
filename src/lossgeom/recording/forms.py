"""Forms that JSON can have: comparing a value with one, and making a dataclass of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from lossgeom.wording import printable, unknown

T = TypeVar("T")

LARGEST = 2**53  # whole numbers up to here are read alike by every reader of JSON
DEEPEST = 32  # levels of nesting

# A form is a type, a value, a set of values or a pattern; a list of one form for all items, or of
# one for each; a dict with a form for each key, where keys with ? may be absent and * stands for
# all others; a tuple of forms, any of which will do; or a dataclass, which has no other keys.
Form = Any


def mismatch(value: Any, form: Form, at: str = "", depth: int = 0) -> str | None:
    """Say in words where a value differs from a form; None if it does not.

    >>> mismatch({"step": "one"}, {"step": int})
    "expected a whole number at step, found 'one'"
    """
    known = is_dataclass(form)
    form = fields_of(form) if known else form
    if isinstance(form, dict) and isinstance(value, dict):
        return _wrong_key(value, form, at, known) or _wrong_fields(value, form, at, depth)
    if isinstance(form, list) and isinstance(value, list) and len(form) in (1, len(value)):
        forms = form * len(value) if len(form) == 1 else form
        found = (
            mismatch(item, of, f"{at}[{i}]", depth + 1)
            for i, (item, of) in enumerate(zip(value, forms, strict=True))
        )
        return next((wrong for wrong in found if wrong is not None), None)
    if isinstance(form, tuple):
        wrongs = [mismatch(value, each, at, depth) for each in form]
        return None if None in wrongs else wrongs[0]
    if _is_one(value, form):
        return "it is nested too deeply" if _is_deep(value, depth) else None
    return f"expected {_words(form)}{_place(at)}, found {printable(repr(value)[:40])}"


def _wrong_key(
    value: dict[str, Any], form: dict[str, Form], at: str, no_others: bool
) -> str | None:
    absent = [key for key in form if key[-1] not in "?*" and key not in value]
    if absent:
        return f"{at}{'.' if at else ''}{absent[0]} is missing"
    names = [key.rstrip("?") for key in form]
    others = [key for key in value if key not in names] if no_others else []
    return unknown(f"key{_place(at)}", printable(others[0]), names) if others else None


def _wrong_fields(value: dict[str, Any], form: dict[str, Form], at: str, depth: int) -> str | None:
    for key, item in value.items():
        of = form.get(key, form.get(f"{key}?", form.get("*", object)))
        wrong = mismatch(item, of, f"{at}.{key}" if at else key, depth + 1)
        if wrong is not None:
            return wrong
    return None


CHECKS: dict[Any, Callable[[Any], bool]] = {
    str: lambda value: isinstance(value, str),
    bool: lambda value: isinstance(value, bool),
    dict: lambda value: isinstance(value, dict),
    object: lambda value: True,  # noqa: ARG005
    int: lambda value: type(value) is int and abs(value) <= LARGEST,
    float: lambda value: type(number(value)) in (int, float) and _fits(number(value)),
}
WORDS = {str: "text", bool: "true or false", dict: "an object", int: "a whole number",
         float: "a number", None: "null"}  # fmt: skip


def _is_one(value: Any, form: Form) -> bool:
    if isinstance(form, type):
        return CHECKS[form](value)
    if isinstance(form, re.Pattern):
        return isinstance(value, str) and form.fullmatch(value) is not None
    if isinstance(form, set):
        return isinstance(value, str) and value in form
    return not isinstance(form, (dict, list)) and type(value) is type(form) and value == form


def _fits(value: float) -> bool:
    try:
        float(value)
    except OverflowError:
        return False
    return True


def _is_deep(value: Any, depth: int) -> bool:
    if depth > DEEPEST:
        return True
    inside = value.values() if isinstance(value, Mapping) else value
    return isinstance(value, (dict, list)) and any(_is_deep(item, depth + 1) for item in inside)


def _place(at: str) -> str:
    return f" at {printable(at)}" if at else ""


def _words(form: Form) -> str:
    if isinstance(form, re.Pattern):
        return "a name of letters, digits, - and _"
    if isinstance(form, set):
        return f"one of {', '.join(sorted(form))}"
    if isinstance(form, (dict, list)):
        return f"{'an object' if isinstance(form, dict) else 'a list'} of its form"
    return WORDS.get(form) or repr(form)


def number(value: Any) -> Any:
    """A number that JSON holds as a string because it is not finite, and anything else as it is.

    >>> number("-inf"), number(2.5)
    (-inf, 2.5)
    """
    return float(value) if value in ("nan", "inf", "-inf") else value


# Dataclasses


@cache
def fields_of(kind: type[Any]) -> dict[str, Form]:
    """The form of a dataclass: of each field by its name, with ? where it has a default."""
    hints = get_type_hints(kind)
    return {
        f"{field.name}{'' if _is_needed(field) else '?'}": _form(hints[field.name])
        for field in fields(kind)
    }


def _is_needed(field: Any) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _form(hint: Any) -> Form:
    """The form of a field with a type hint."""
    origin, inside = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return tuple(_form(each) for each in inside)
    if origin is Literal:
        return set(inside)
    if origin is tuple:
        return [_form(inside[0])] if inside[-1] is ... else [_form(each) for each in inside]
    if origin is not None:
        return {"*": _form(inside[1])}
    return None if hint is NoneType else hint


def made(kind: type[T], value: Mapping[str, Any]) -> T:
    """A dataclass from an object of its form, of which it takes its own fields."""
    hints = get_type_hints(kind)
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: _made(hints[name], value[name]) for name in names if name in value})


def _made(hint: Any, value: Any) -> Any:
    inside = get_args(hint)
    if is_dataclass(hint):
        return made(hint, value)  # type: ignore[arg-type]
    if get_origin(hint) in (Union, UnionType):
        return None if value is None else _made(inside[0], value)
    if isinstance(value, list):
        each = [inside[0]] * len(value) if inside[-1] is ... else inside
        return tuple(_made(of, item) for of, item in zip(each, value, strict=True))
    if isinstance(value, dict):
        return {key: _made(inside[1], item) for key, item in value.items()}
    return number(value) if hint is float else value
