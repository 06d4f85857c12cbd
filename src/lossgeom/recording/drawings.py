"""Arrays that a record holds for its report to draw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, TypeVar

from torch import Tensor

from lossgeom.recording.for_report import Drawing
from lossgeom.recording.forms import made, mismatch
from lossgeom.recording.json_files import plain
from lossgeom.recording.record import Record
from lossgeom.recording.record_format import RecordError

D = TypeVar("D", bound=Drawing)


def save_drawing(
    record: Record, name: str, drawing: Drawing, arrays: Mapping[str, Tensor], **facts: Any
) -> None:
    """Write arrays for the report to draw, and put their name into the manifest.

    Args:
        record: where to.
        name: of the arrays.
        drawing: what they are, and how to label them.
        arrays: those that the drawing's class describes.
        facts: more about them, of which the report makes no use.

    Raises:
        ValueError: if an array is missing, or a field is of another type.
    """
    kind, described = type(drawing), plain(asdict(drawing))
    wrong = _mismatch(kind, described, arrays)
    if wrong is not None:
        raise ValueError(f"expected a {kind.__name__} to save as {name!r}, but {wrong}")
    record.save_arrays(name, arrays, **facts, **described)
    listed = record.manifest.get(kind.key, [])
    if name not in listed:
        record.update(**{kind.key: [*listed, name]})


def load_drawing(record: Record, name: str, kind: type[D]) -> tuple[D, dict[str, Tensor]] | None:
    """A drawing of a record with its arrays; None if it is not there yet.

    Raises:
        RecordError: if it is damaged, or is not of this kind.
    """
    found = record.load_arrays(name)
    if found is None:
        return None
    arrays, facts = found
    described = {each.name: facts[each.name] for each in fields(kind) if each.name in facts}
    wrong = _mismatch(kind, described, arrays)
    if wrong is not None:
        raise RecordError(
            f"{record.path} holds arrays {name!r} that are no {kind.__name__}: {wrong}"
        )
    return made(kind, described), arrays


def _mismatch(
    kind: type[Any], described: dict[str, Any], arrays: Mapping[str, Tensor]
) -> str | None:
    wrong = mismatch(described, kind)
    if wrong is None:
        missing = [name for name in made(kind, described).arrays if name not in arrays]
        wrong = f"there is no array {missing[0]!r}" if missing else None
    return wrong
