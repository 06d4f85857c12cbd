"""How runs end: one quantity over another, one point per run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lossgeom.extras import required
from lossgeom.recording.record import Record
from lossgeom.report import figures as drawing
from lossgeom.report._section import Section
from lossgeom.report._source import Source
from lossgeom.report.figures import level, literal, words

SMALLEST, LARGEST = 10.0, 80.0  # areas of points, in square points

Point = tuple[Record, dict[str, float]]  # and the last value of every metric


@dataclass(frozen=True)
class Scale:
    """What the values of a setting look like: each has a colour, or each has a size."""

    key: str
    looks: dict[Any, Any]

    @classmethod
    def of_colours(cls, key: str, records: Sequence[Record]) -> Scale:
        """From dark to light by value."""
        values = sorted({record.config[key] for record in records})
        return cls(key, dict(zip(values, drawing.colours(len(values)), strict=True)))

    @classmethod
    def of_sizes(cls, key: str, records: Sequence[Record]) -> Scale:
        """From small to large by value."""
        values = sorted({record.config[key] for record in records})
        sizes = np.linspace(SMALLEST, LARGEST, len(values)).tolist()
        return cls(key, dict(zip(values, sizes, strict=True)))

    def __getitem__(self, record: Record) -> Any:
        return self.looks[record.config[self.key]]


def scatter(source: Source, figures: Path) -> Section | None:
    """The last values of the metrics that the manifest's ``scatter`` names.

    That is a dict with the config keys ``colour`` and ``size``, a ``caption``, and ``panels``:
    dicts with ``x`` and ``y``, each with a ``metric`` and its ``label``. Runs that are left out of
    the claims, as their manifests say under ``left_out``, are not drawn.
    """
    layout = source.manifest.get("scatter")
    if not layout:
        return None
    left_out = [record for record in source.records.values() if "left_out" in record.manifest]
    needed = {panel[axis]["metric"] for panel in layout["panels"] for axis in "xy"}
    points = [
        (record, ends)
        for record in source.records.values()
        if record not in left_out and needed <= (ends := finite_ends(record)).keys()
    ]
    if not points:
        return None
    with required("matplotlib").rc_context(drawing.STYLE):
        svg = drawing.save(_figure(layout, points), figures, "scatter")
    values = {
        "svg": svg,
        "caption": layout["caption"],
        "drawn": len(points),
        "left_out": len(left_out),
        "absent": len(source.planned) - len(points) - len(left_out),
    }
    return Section("At the end of training", "scatter.html", values)


def finite_ends(record: Record) -> dict[str, float]:
    """The last value of every metric whose last value is finite."""
    rows = sorted((row for row in record.rows() if "metric" in row), key=lambda row: row["step"])
    last = {row["metric"]: row["value"] for row in rows}
    return {metric: value for metric, value in last.items() if math.isfinite(value)}


def _figure(layout: dict[str, Any], points: Sequence[Point]) -> Any:
    records = [record for record, _ in points]
    colours = Scale.of_colours(layout["colour"], records)
    sizes = Scale.of_sizes(layout["size"], records)
    panels = layout["panels"]
    figure = required("matplotlib.figure").Figure(
        figsize=(0.6 + 3.6 * len(panels), 4.1), layout="constrained"
    )
    small_last = sorted(points, key=lambda point: -float(sizes[point[0]]))
    for axis, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for record, values in small_last:
            axis.scatter(
                *(values[panel[of]["metric"]] for of in "xy"),
                s=sizes[record], facecolor=colours[record], edgecolor="white", linewidth=0.5,
            )  # fmt: skip
        axis.set_xlabel(literal(panel["x"]["label"]))
        axis.set_ylabel(literal(panel["y"]["label"]))
    _legends(figure, colours, sizes)
    return figure


def _legends(figure: Any, colours: Scale, sizes: Scale) -> None:
    Line2D = required("matplotlib.lines").Line2D
    middle = (SMALLEST + LARGEST) / 2
    for scale, place in ((colours, "left"), (sizes, "right")):
        handles = [
            Line2D(
                [],
                [],
                linestyle="none",
                marker="o",
                color=look if scale is colours else "0.4",
                markersize=(middle if scale is colours else look) ** 0.5,
                label=words(level(value)),
            )
            for value, look in scale.looks.items()
        ]
        figure.legend(
            handles=handles, title=words(scale.key), loc=f"outside upper {place}",
            ncols=len(handles), columnspacing=1.2, handletextpad=0.3,
        )  # fmt: skip
