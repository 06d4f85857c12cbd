"""Arrays of several runs that are drawn in one panel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from lossgeom.recording.drawings import load_drawing
from lossgeom.recording.for_report import Drawing
from lossgeom.recording.record import Record
from lossgeom.report._source import Source

D = TypeVar("D", bound=Drawing)
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Saved(Generic[D]):
    """A drawing with the arrays of all runs that hold it.

    Attributes:
        drawing: how the first of them says to draw it.
        arrays: by name, for each run that holds them.
    """

    drawing: D
    arrays: tuple[Arrays, ...]

    @property
    def first(self) -> Arrays:
        """The arrays of the first run."""
        return self.arrays[0]

    def stack(self, name: str, axis: int = 0) -> np.ndarray:
        """An array of all runs, one after the other along a new axis."""
        return np.stack([each[name] for each in self.arrays], axis)


def saved(source: Source, kind: type[D]) -> list[Saved[D]]:
    """The drawings of a kind, each with the arrays of all runs that hold it."""
    found: dict[str, Saved[D]] = {}
    for record in source.records.values():
        for _, name, each in saved_by(record, kind):
            before = found.get(name, Saved(each.drawing, ()))
            found[name] = Saved(before.drawing, (*before.arrays, *each.arrays))
    return list(found.values())


def saved_by(record: Record, kind: type[D]) -> Iterator[tuple[int, str, Saved[D]]]:
    """The drawings that a record holds by now, with their places among those that are planned."""
    for place, name in enumerate(record.manifest.get(kind.key, ())):
        held = load_drawing(record, name, kind)
        if held is not None:
            arrays = {part: tensor.double().numpy() for part, tensor in held[1].items()}
            yield place, name, Saved(held[0], (arrays,))
