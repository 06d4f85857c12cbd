"""Arrays that a record holds for its report to draw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, TypeVar

from torch import Tensor

from lossgeom.recording.for_report import Drawing
from lossgeom.recording.forms import parse
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
    try:
        parse(kind, described)
        _check_arrays(drawing, arrays)
    except ValueError as error:
        raise ValueError(f"expected a {kind.__name__} to save as {name!r}, but {error}") from None
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
    try:
        drawing: D = parse(kind, facts, others=True)
        _check_arrays(drawing, arrays)
    except ValueError as error:
        raise RecordError(
            f"{record.path} holds arrays {name!r} that are no {kind.__name__}: {error}"
        ) from None
    return drawing, arrays


def _check_arrays(drawing: Drawing, arrays: Mapping[str, Tensor]) -> None:
    for name in drawing.arrays:
        if name not in arrays:
            raise ValueError(f"there is no array {name!r}")
