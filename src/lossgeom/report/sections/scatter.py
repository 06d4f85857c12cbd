"""How runs end: one quantity over another, one point per run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lossgeom.extras import required
from lossgeom.record import Record
from lossgeom.report import figures as drawing
from lossgeom.report._section import Section
from lossgeom.report._source import Source
from lossgeom.report.figures import level, literal, words

SMALLEST, LARGEST = 14.0, 130.0  # areas of points, in square points


@dataclass(frozen=True)
class Scale:
    """What the values of a setting look like: each has a colour, or each has a size."""

    key: str
    looks: dict[Any, Any]

    @classmethod
    def of_colours(cls, key: str, records: list[Record]) -> Scale:
        """From dark to light by value."""
        values = sorted({record.config[key] for record in records})
        return cls(key, dict(zip(values, drawing.colours(len(values)), strict=True)))

    @classmethod
    def of_sizes(cls, key: str, records: list[Record]) -> Scale:
        """From small to large by value."""
        values = sorted({record.config[key] for record in records})
        sizes = np.linspace(SMALLEST, LARGEST, len(values)).tolist()
        return cls(key, dict(zip(values, sizes, strict=True)))

    def __getitem__(self, record: Record) -> Any:
        return self.looks[record.config[self.key]]


def scatter(source: Source, figures: Path) -> Section | None:
    """The last values of the metrics that the manifest's ``scatter`` names.

    That is a dict with the config keys ``colour`` and ``size``, and ``panels``: dicts with ``x``
    and ``y``, each with a ``metric`` and its ``label``. Runs that are left out of the claims, as
    their manifests say under ``left_out``, are hollow.
    """
    layout = source.manifest.get("scatter")
    records = list(source.records.values())
    if not layout or not records:
        return None
    ends = [(record, last_values(record)) for record in records]
    needed = {panel[axis]["metric"] for panel in layout["panels"] for axis in "xy"}
    drawn = [
        (record, values)
        for record, values in ends
        if all(math.isfinite(values.get(metric, math.nan)) for metric in needed)
    ]
    if not drawn:
        return None
    with required("matplotlib").rc_context(drawing.STYLE):
        figure = _figure(layout, records, drawn)
        svg = drawing.save(figure, figures, "scatter")
    values = {
        "svg": svg,
        "drawn": len(drawn),
        "hollow": sum("left_out" in record.manifest for record, _ in drawn),
        "absent": len(source.planned) - len(drawn),
    }
    return Section("At the end of training", "scatter.html", values)


def last_values(record: Record) -> dict[str, float]:
    """The last value of every metric."""
    rows = [row for row in record.rows() if "metric" in row]
    return {row["metric"]: row["value"] for row in sorted(rows, key=lambda row: row["step"])}


def _figure(
    layout: dict[str, Any], records: list[Record], drawn: list[tuple[Record, dict[str, float]]]
) -> Any:
    colours = Scale.of_colours(layout["colour"], records)
    sizes = Scale.of_sizes(layout["size"], records)
    panels = layout["panels"]
    figure = required("matplotlib.figure").Figure(
        figsize=(0.6 + 3.6 * len(panels), 4.1), layout="constrained"
    )
    for axis, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for record, values in sorted(drawn, key=lambda pair: -float(sizes[pair[0]])):
            hollow = "left_out" in record.manifest
            axis.scatter(
                *(values[panel[of]["metric"]] for of in "xy"),
                s=sizes[record],
                facecolor="none" if hollow else colours[record],
                edgecolor=colours[record] if hollow else "white",
                linewidth=1.2 if hollow else 0.5,
            )
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
