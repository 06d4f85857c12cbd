"""A record as a table in a notebook."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lossgeom.recording.folder import flat
from lossgeom.reprs import Svg, html_table, sparkline

SETTINGS = 6  # that are named
Row = tuple[str, str | Svg, str]


def shown(path: Path, manifest: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """What a record is of, and a curve and the last value of each metric, as HTML."""
    config = flat(manifest["config"])
    settings = ", ".join(f"{name} {value}" for name, value in [*config.items()][:SETTINGS])
    more = f" and {len(config) - SETTINGS} more" if len(config) > SETTINGS else ""
    title = f"{manifest['kind']} {path.resolve().name}: {manifest['status']}"
    said = f"{title}, {settings}{more}" if settings else title
    metrics = dict.fromkeys(row["metric"] for row in rows if "metric" in row)
    return html_table(said, [("metric", "over steps", "last"), *(_row(m, rows) for m in metrics)])


def _row(metric: str, rows: Sequence[Mapping[str, Any]]) -> Row:
    """The name of a metric, its curve where it has one, and its last value."""
    points = {row["step"]: float(row["value"]) for row in rows if row.get("metric") == metric}
    steps = sorted(points)
    values = [points[step] for step in steps]
    bad = sum(not math.isfinite(value) for value in values)
    last = f"{values[-1]:.6g} at step {steps[-1]}" + (f"; {bad} not finite" if bad else "")
    return metric.replace("_", " "), sparkline(steps, values) if len(steps) > 1 else Svg(), last
