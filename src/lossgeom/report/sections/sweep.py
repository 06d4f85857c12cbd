"""Metrics over a setting that is varied, with a line for each value of another one."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from lossgeom.plot.style import DASHES, colours, level, literal, panels, words
from lossgeom.recording.ended import series_of
from lossgeom.recording.metric_figures import Outcome, Strengths, Sweep
from lossgeom.recording.record import Record
from lossgeom.report._section import Section
from lossgeom.report._source import Source
from lossgeom.report.figures import save

OF: dict[str, Callable[[list[float]], float]] = {
    "last": lambda values: values[-1],
    "largest": max,
    "smallest": min,
    "median": statistics.median,
}
POINTS: dict[str, dict[str, Any]] = {
    "counted": {"marker": "o", "alpha": 0.4, "markeredgewidth": 0},
    "left out": {"marker": "o", "markerfacecolor": "white"},
    "diverged": {"marker": "x", "markersize": 5},
    "no value": {"marker": "|", "markersize": 7},
}
AT_AN_END = {"diverged": 1.02, "no value": 0.03}  # heights of a panel, beside values
STACKED = 0.06  # of a panel, from the marks of one line to those of the next
BREAK = 1.6  # mean distances between levels, from 0 to the first level on a logarithmic axis
GAP = {"facecolor": "white", "edgecolor": "none", "pad": 0}
SIDE_BY_SIDE = 3  # panels of a single column
WIDEST = 4  # columns of panels
TICKS = 7
NEAR = 0.15  # of an axis, to the label before


@dataclass(frozen=True)
class Run:
    """A run that is over: its settings, the values of its metrics, and its kind of point."""

    config: dict[str, Any]
    series: dict[str, list[float]]
    kind: str

    @classmethod
    def of(cls, record: Record) -> Run:
        """Read the rows of a record once, for all panels."""
        kind = "counted" if record.for_report.left_out is None else "left out"
        kind = "diverged" if record.status == "diverged" else kind
        return cls(record.config, series_of(record.rows()), kind)

    def strength(self, setting: str) -> Any:
        """The value of a setting, or else the last one of a metric; None without a finite one."""
        value = self.config.get(setting, self.series.get(setting, [None])[-1])
        return None if isinstance(value, float) and not math.isfinite(value) else value

    def end(self, outcome: Outcome) -> tuple[str, float]:
        """The kind of a point, and its value if that can be drawn."""
        values = self.series.get(outcome.metric, [])
        value = OF[outcome.of](values) if values else math.nan
        drawable = math.isfinite(value) and (value > 0 or not outcome.log)
        return (self.kind if drawable or self.kind == "diverged" else "no value"), value


def sweep(source: Source, figures: Path) -> Section | None:
    """A column of panels for each setting that is varied, and a row for each metric."""
    layout = source.told.sweep
    runs = [Run.of(record) for record in source.records.values() if record.is_over]
    if layout is None or not runs:
        return None
    figure, counts = _figure(layout, runs)
    values = {
        "svg": save(figure, figures, "sweep"),
        "caption": layout.caption,
        "lines": words(layout.lines) if layout.lines else None,
        "counts": counts,
        "absent": len(source.planned) - len(runs),
    }
    return Section("Over the settings", "sweep.html", values)


def _figure(layout: Sweep, runs: Sequence[Run]) -> tuple[Any, Counter[str]]:
    """The figure, and how many points there are of each kind."""
    figure, axes = _panels(len(layout.rows), len(layout.columns))
    key = layout.lines
    levels = sorted({run.config[key] for run in runs}) if key else [None]
    looks = list(zip(levels, colours(len(levels)), cycle(DASHES), strict=False))
    counts = Counter[str]()
    for j, strengths in enumerate(layout.columns):
        placed, lost = _placed(axes[:, j], strengths, runs)
        counts["no place"] += lost
        ordered = not any(isinstance(run.strength(strengths.setting), str) for _, run in placed)
        for axis, outcome in zip(axes[:, j], layout.rows, strict=True):
            axis.set_yscale("log" if outcome.log else "linear")
            axis.set_ylabel(literal(outcome.label))
            for place, (value, colour, dashes) in enumerate(looks):
                line = [(x, *run.end(outcome)) for x, run in placed
                        if key is None or run.config[key] == value]  # fmt: skip
                counts += _draw(axis, line, place, color=colour, label=words(level(value)),
                                linestyle=dashes if ordered else "")  # fmt: skip
    if key:
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, title=words(key), loc="outside upper center", ncols=6)
    return figure, counts


def _panels(rows: int, columns: int) -> tuple[Any, Any]:
    """A figure with panels (rows, columns); those of a single column are side by side."""
    if columns > 1:
        return _in_blocks(rows, columns)
    high = -(-rows // SIDE_BY_SIDE)
    wide = -(-rows // high)
    figure, axes = panels(max(6.3, 0.6 + 3.4 * wide), 0.8 + 2.5 * high, rows=high, columns=wide)
    for axis in axes.flat[rows:]:
        axis.remove()
    return figure, axes.reshape(-1, 1)[:rows]


def _in_blocks(rows: int, columns: int) -> tuple[Any, Any]:
    """The same of several columns, the last of which are below the others where they are many."""
    blocks = -(-columns // WIDEST)
    wide = -(-columns // blocks)
    figure, grid = panels(1.3 + 2.3 * wide, 0.8 + 2.1 * rows * blocks, rows=rows * blocks,
                          columns=wide)  # fmt: skip
    found = np.concatenate(np.split(grid, blocks), axis=1)
    for axis in found[:, columns:].flat:
        axis.remove()
    for (i, j), axis in np.ndenumerate(found[:, :columns]):
        axis.sharex(found[-1, j])
        axis.sharey(found[i, 0])
        axis.tick_params(which="both", labelbottom=i == rows - 1, labelleft=j % wide == 0)
        axis.xaxis.label.set_visible(i == rows - 1)
        axis.yaxis.label.set_visible(j % wide == 0)
    return figure, found[:, :columns]


def _placed(
    axes: Any, strengths: Strengths, runs: Sequence[Run]
) -> tuple[list[tuple[float, Run]], int]:
    """Prepare the axes of a setting; return the runs that have a place there; count the others."""
    inside = [
        (run.strength(strengths.setting), run) for run in runs
        if all(run.config.get(key) in values for key, values in strengths.where.items())
    ]  # fmt: skip
    at, broken = places(sorted({value for value, _ in inside} - {None}), log=strengths.log)
    for axis in axes:
        axis.set_xlabel(literal(strengths.label))
        if len(at) > TICKS and all(isinstance(value, str) for value in at):
            axis.set_xticks(list(at.values()), [literal(name) for name in at], rotation=90)
        elif strengths.log or any(value != place for value, place in at.items()):
            axis.set_xticks(*_ticks(at))
        if broken is not None:
            axis.text(broken, 0, "//", transform=axis.get_xaxis_transform(), ha="center",
                      va="center", bbox=GAP)  # fmt: skip
    placed = [(at[value], run) for value, run in inside if value is not None]
    return placed, len(inside) - len(placed)


def places(levels: Sequence[Any], *, log: bool) -> tuple[dict[Any, float], float | None]:
    """Place the ascending values of a setting on an axis; tell where that is broken.

    Text is in order, and 0 before the logarithms of the others.

    >>> places(["a", "b"], log=False)
    ({'a': 0.0, 'b': 1.0}, None)
    >>> places([0, 0.01, 0.1], log=True)
    ({0: -3.6, 0.01: -2.0, 0.1: -1.0}, -2.8)
    """
    if any(isinstance(value, str) for value in levels):
        return {value: float(i) for i, value in enumerate(levels)}, None
    if not log or not levels or levels[0] < 0 or levels[-1] == 0:
        return {value: float(value) for value in levels}, None
    logs = {value: math.log10(value) for value in levels if value}
    low, high = min(logs.values()), max(logs.values())
    apart = BREAK * (high - low) / (len(logs) - 1) if len(logs) > 1 else 1.0
    zero = {} if levels[0] else {levels[0]: low - apart}
    return {**zero, **logs}, low - apart / 2 if zero else None


def _ticks(at: dict[Any, float]) -> tuple[list[float], list[str]]:
    """Places of ticks, and their labels, of which one that is near to another is a line lower."""
    shown = list(at)[:: -(-len(at) // TICKS)]
    reach, last, labels = max(at.values()) - min(at.values()), -math.inf, []
    for value in shown:
        lower = at[value] - last < NEAR * reach
        last = last if lower else at[value]
        labels.append("\n" * lower + literal(level(value)))
    return [at[value] for value in shown], labels


def _draw(
    axis: Any, line: Sequence[tuple[float, str, float]], place: int, **style: Any
) -> Counter[str]:
    """Draw a line through medians, and the points of single runs; count these by their kind."""
    counted = sorted({x for x, kind, _ in line if kind == "counted"})
    middle = [statistics.median(y for at, kind, y in line if (at, kind) == (x, "counted"))
              for x in counted]  # fmt: skip
    axis.plot(counted, middle, marker="o", markersize=4.5, **style)
    for kind, look in POINTS.items():
        points = [(x, y) for x, this, y in line if this == kind]
        if kind in AT_AN_END:
            _mark(axis, Counter(x for x, _ in points), AT_AN_END[kind] + place * STACKED,
                  color=style["color"], **look)  # fmt: skip
        elif points:
            axis.plot(*zip(*points, strict=True), linestyle="", color=style["color"], **look)
    return Counter(kind for _, kind, _ in line)


def _mark(axis: Any, runs: Counter[float], height: float, **look: Any) -> None:
    """Mark places at a height of the panel, with the number of runs beside it if there are more."""
    high = {"transform": axis.get_xaxis_transform(), "clip_on": False}
    for x, count in runs.items():
        axis.plot(x, height, linestyle="", **look, **high)
        if count > 1:
            axis.annotate(str(count), (x, height), (5, -3), xycoords=high["transform"],
                          textcoords="offset points", color=look["color"])  # fmt: skip
