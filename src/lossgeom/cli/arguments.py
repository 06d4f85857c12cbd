"""The reading of command lines, with an error in words for anything but a choice or a number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from lossgeom.cli.messages import say
from lossgeom.messages.wording import unknown

REGISTRY = ConstructorRegistry()
Options = TypeVar("Options")


def parsed(
    kind: type[Options],
    arguments: Sequence[str],
    command: str,
    description: str | None = None,
) -> Options:
    """Read the arguments of a command into a dataclass, or print its help or an error and exit."""
    return tyro.cli(
        kind,
        args=arguments,
        prog=f"lossgeom {command}",
        description=description,
        registry=REGISTRY,
    )


def optional(metavar: str, default: str = "none") -> Any:
    """Describe an argument that may be left out, as the help shows it."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"(default: {default})")


def named(metavar: str) -> Any:
    """Describe an argument that has no flag."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="")


def records_among(paths: Sequence[Path]) -> Sequence[Path]:
    """Leave out what else a pattern such as ``runs/*`` has matched, and say so."""
    from lossgeom.recording.folder import is_record

    others = [path for path in paths if path.exists() and not is_record(path)]
    if not others or len(others) == len(paths):
        return paths
    say(f"no records, and left out: {', '.join(map(str, others))}")
    return [path for path in paths if path not in others]


def choices(names: Sequence[str]) -> str:
    """Write names to choose from as the help shows them."""
    return f"{{{','.join(names)}}}"


@REGISTRY.primitive_rule
def _choice_or_number(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Read one of some names, or a number, whether it may be left out or not."""
    kind = _without_none(info.type)
    if get_origin(kind) is Literal:
        names = get_args(kind)
        return _spec(choices(names), lambda text: _one_of(names, text))
    if kind is int or kind is float:
        return _spec(kind.__name__.upper(), lambda text: _number(kind, text))
    return None


def _without_none(kind: Any) -> Any:
    if get_origin(kind) not in (Union, UnionType):
        return kind
    others = [part for part in get_args(kind) if part is not NoneType]
    return others[0] if len(others) == 1 else kind


def _one_of(names: tuple[str, ...], text: str) -> str:
    if text not in names:
        raise ValueError(unknown("choice", text, names))
    return text


def _number(kind: type[int] | type[float], text: str) -> float:
    try:
        return kind(text)
    except ValueError:
        words = "a whole number" if kind is int else "a number"
        raise ValueError(f"expected {words}, got {text!r}") from None


def _spec(metavar: str, read: Callable[[str], Any]) -> PrimitiveConstructorSpec[Any]:
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda texts: read(texts[0]),
        is_instance=lambda value: value is None or isinstance(value, (str, int, float)),
        str_from_instance=lambda value: [str(value)],
    )
