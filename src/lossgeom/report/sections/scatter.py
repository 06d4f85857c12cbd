"""How runs end: one quantity over another, one point per run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lossgeom.messages.extras import required
from lossgeom.plot.style import colours, level, literal, panels, words
from lossgeom.recording.correlations import Runs
from lossgeom.recording.ended import ended, last_values
from lossgeom.recording.metric_figures import Pair, Scatter
from lossgeom.recording.record import Record
from lossgeom.report._section import Section
from lossgeom.report._source import Source
from lossgeom.report.figures import save

SMALLEST, LARGEST = 10.0, 80.0  # areas of points, in square points
MOST = 3  # panels side by side
MIDDLE = (SMALLEST + LARGEST) / 2

Point = tuple[Record, dict[str, float]]  # and the last value of every metric


def scatter(source: Source, figures: Path) -> Section | None:
    """A point for each run that has ended, but for those that are left out of the claims."""
    layout = source.told.scatter
    if layout is None:
        return None
    left_out = [r for r in source.records.values() if r.for_report.left_out is not None]
    needed = {quantity.metric for panel in layout.panels for quantity in (panel.x, panel.y)}
    points = [
        (record, ends)
        for record in source.records.values()
        if record not in left_out and needed <= (ends := finite_ends(record)).keys()
    ]
    if not points:
        return None
    values = {
        "svg": save(_figure(layout, points), figures, "scatter"),
        "caption": layout.caption,
        "drawn": len(points),
        "left_out": len(left_out),
        "absent": len(source.planned) - len(points) - len(left_out),
    }
    return Section("At the end of training", "scatter.html", values)


def finite_ends(record: Record) -> dict[str, float]:
    """The last value of every metric whose last value is finite."""
    return {metric: value for metric, value in last_values(record).items() if math.isfinite(value)}


def _figure(layout: Scatter, points: Sequence[Point]) -> Any:
    """Panels side by side, where small points lie on large ones, with a legend for each setting."""
    colour_of, size_of = (
        dict(zip(values, looks(len(values)), strict=True))
        for key, looks in ((layout.colour, colours), (layout.size, _sizes))
        for values in [sorted({_setting(record, key) for record, _ in points})]
    )
    points = sorted(points, key=lambda point: -size_of[_setting(point[0], layout.size)])
    rows = -(-len(layout.panels) // MOST)
    columns = -(-len(layout.panels) // rows)
    figure, axes = panels(0.6 + 3.6 * columns, 0.5 + 3.6 * rows, rows=rows, columns=columns)
    for axis in axes.flat[len(layout.panels) :]:
        axis.remove()
    runs = ended(record for record, _ in points)
    for axis, panel in zip(axes.flat, layout.panels, strict=False):
        for record, values in points:
            axis.scatter(
                values[panel.x.metric], values[panel.y.metric],
                s=size_of[_setting(record, layout.size)],
                facecolor=colour_of[_setting(record, layout.colour)],
                edgecolor="white", linewidth=0.5,
            )  # fmt: skip
        axis.set_title(_correlations(runs, panel), color="0.3")
        axis.set_xlabel(literal(panel.x.label))
        axis.set_ylabel(literal(panel.y.label))
    if layout.colour:
        _legend(figure, layout.colour, {v: (look, MIDDLE) for v, look in colour_of.items()}, "left")
    if layout.size:
        _legend(figure, layout.size, {v: ("0.4", look) for v, look in size_of.items()}, "right")
    return figure


def _correlations(runs: Runs, panel: Pair) -> str:
    """Both correlations over the runs of a panel; nothing where there is none."""
    found = {
        name: runs.correlation(panel.x.metric, panel.y.metric, ranks=ranks)
        for name, ranks in (("rank correlation", True), ("Pearson's", False))
    }
    return "\n".join(f"{name} {each}" for name, each in found.items() if each.value == each.value)


def _setting(record: Record, key: str | None) -> Any:
    """The value of a setting; the same for all runs if there is none."""
    return record.config[key] if key else ""


def _sizes(n: int) -> list[float]:
    return [MIDDLE] if n == 1 else [float(size) for size in np.linspace(SMALLEST, LARGEST, n)]


def _legend(figure: Any, key: str, looks: dict[Any, tuple[Any, float]], place: str) -> None:
    """Show the colour and the area of a point for each value of a setting."""
    line = required("matplotlib.lines").Line2D
    handles = [
        line([], [], linestyle="none", marker="o", color=colour, markersize=area**0.5,
             label=words(level(value)))
        for value, (colour, area) in looks.items()
    ]  # fmt: skip
    figure.legend(
        handles=handles, title=words(key), loc=f"outside upper {place}",
        ncols=min(4, len(handles)),
        columnspacing=1.2, handletextpad=0.3,
    )  # fmt: skip
