"""A record in a line, and as a table in a notebook."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lossgeom.messages.reprs import Svg, html_table, sparkline
from lossgeom.recording.folder import flat
from lossgeom.recording.record_format import RecordError

SETTINGS = 6  # that are named
Row = tuple[str, str | Svg, str]
Read = Callable[[], Sequence[Mapping[str, Any]]]  # of rows, with an error where they are damaged


def in_line(path: Path, manifest: Mapping[str, Any], read: Read) -> str:
    """A record's folder, status and number of rows, or the reason why they cannot be read."""
    try:
        rows = f"rows={len(read())}"
    except RecordError as error:
        rows = str(error)
    return f"Record({str(path)!r}, status={manifest['status']!r}, {rows})"


def shown(path: Path, manifest: Mapping[str, Any], read: Read) -> str:
    """What a record is of, and a curve and the last value of each metric, as HTML."""
    config = flat(manifest["config"])
    settings = ", ".join(f"{name} {value}" for name, value in [*config.items()][:SETTINGS])
    more = f" and {len(config) - SETTINGS} more" if len(config) > SETTINGS else ""
    title = f"{manifest['kind']} {path.resolve().name}: {manifest['status']}"
    said = f"{title}, {settings}{more}" if settings else title
    try:
        rows = read()
    except RecordError as error:
        return html_table(said, [("not readable", str(error))])
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        if "metric" in row:
            found.setdefault(row["metric"], {})[row["step"]] = float(row["value"])
    return html_table(said, [("metric", "over steps", "last"), *map(_row, found, found.values())])


def _row(metric: str, points: Mapping[int, float]) -> Row:
    """The name of a metric, its curve where it has one, and its last value."""
    steps = sorted(points)
    values = [points[step] for step in steps]
    bad = sum(not math.isfinite(value) for value in values)
    last = f"{values[-1]:.6g} at step {steps[-1]}" + (f"; {bad} not finite" if bad else "")
    return metric.replace("_", " "), sparkline(steps, values) if len(steps) > 1 else Svg(), last
