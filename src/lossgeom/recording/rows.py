"""The rows of a record: their form, and which of them stand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lossgeom.messages.extras import required
from lossgeom.recording.forms import number, parse
from lossgeom.recording.record_format import MEASUREMENT, Estimated, Measured, RecordError

MEASURED = ("step", "metric", "value")  # what a row of a measurement has
SUPERSEDES = "supersedes_lines"  # in a row that says which ones stand no longer


@dataclass(frozen=True)
class Superseding:
    """A row by which those of its step and later ones, of the first lines, stand no longer."""

    step: int
    supersedes_lines: int


def checked_row(row: Any, kind: str) -> dict[str, Any]:
    """Check a row against the form of its kind of record, and return it with its numbers.

    Raises:
        ValueError: with what is wrong.
    """
    parse(dict, row)
    checked = {key: number(value) for key, value in row.items()}
    forms = (Measured, Estimated) if kind == MEASUREMENT else (Measured,)
    for form in forms if "metric" in checked else ():
        parse(form, checked, others=True)
    if SUPERSEDES in checked:
        parse(Superseding, checked, others=True)
    return checked


def read_rows(lines: Sequence[bytes], path: Path, kind: str) -> list[dict[str, Any]]:
    """Read the rows of a file that stand.

    Raises:
        RecordError: if one cannot be read, or is of another form.
    """
    rows = []
    for i, line in enumerate(lines):
        try:
            rows.append(checked_row(json.loads(line), kind))
        except (ValueError, RecursionError) as error:
            raise RecordError(f"{path} is damaged in line {i + 1}: {error}") from error
    return _standing(rows)


def latest(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The measurements in rows, by step; of several of a metric at a step, the last one.

    >>> rows = [{"step": step, "metric": "loss", "value": value} for step, value in
    ...         [(1, 2.0), (0, 3.0), (1, 1.0)]]
    >>> [(row["step"], row["value"]) for row in latest(rows)]
    [(0, 3.0), (1, 1.0)]
    """
    found = {(row["step"], row["metric"]): row for row in rows if "metric" in row}
    return sorted(found.values(), key=lambda row: row["step"])


def frame_of(rows: list[dict[str, Any]], wide: bool) -> Any:
    """Measurements as a data frame of pandas, ``wide`` with a column for each metric."""
    pandas = required("pandas")
    frame = pandas.DataFrame(rows, columns=None if rows else MEASURED)
    if not wide:
        return frame
    metrics = frame["metric"].unique()  # in the order in which they were measured
    return frame.pivot(index="step", columns="metric", values="value")[metrics]


def measured_in(rows: list[dict[str, Any]]) -> set[tuple[int, str]]:
    """What is measured in rows: at which steps, and what."""
    return {(row["step"], row["metric"]) for row in rows if "metric" in row}


def _standing(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out the rows that later ones supersede."""
    gone: set[int] = set()
    for row in rows:
        if SUPERSEDES in row:
            first = enumerate(rows[: row[SUPERSEDES]])
            gone |= {i for i, each in first if each.get("step", -1) >= row["step"]}
    return [row for i, row in enumerate(rows) if i not in gone] if gone else rows
