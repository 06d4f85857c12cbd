"""Metrics along training: one panel per metric, one column and colour per setting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lossgeom.recording.metric_figures import Panel, Trajectories
from lossgeom.recording.record import Record
from lossgeom.report._section import Section
from lossgeom.report._source import Source
from lossgeom.report.figures import DASHES, colours, level, literal, panels, save, words
from lossgeom.report.sections._all_metrics import panels_of
from lossgeom.report.sections._thresholds import draw_lines, lines_of, make_room

FEW_STEPS = 30  # up to here, every point has a marker
LONG = 60  # characters, beyond which a legend had better name folders
FEW_FAR, FAR = 0.05, 9.0  # values that are this few and times the range of the others away
LEGEND, LINE = 150, 0.18  # characters that a legend has room for, and inches of a line of it
MANY = 10  # values that have to be left

Groups = dict[str, list[str]]  # names of runs, by what to call them


@dataclass(frozen=True)
class Curve:
    """A metric over the steps of the runs that share a setting.

    Attributes:
        steps: (S,) planned or measured ones.
        values: (R, S), one row per run; NaN where there is no value or none that is finite.
        missing: (R, S), where a planned value is not there.
        nonfinite: (R, S), where NaN or infinity was measured.
    """

    steps: np.ndarray
    values: np.ndarray
    missing: np.ndarray
    nonfinite: np.ndarray

    @classmethod
    def of(cls, records: Sequence[Record], metric: str) -> Curve | None:
        """Read a metric from records; None if no record has it."""
        series = [dict(zip(*record.series(metric), strict=True)) for record in records]
        if not any(series):
            return None
        plans = [set(record.for_report.planned_steps) for record in records]
        steps = sorted(set().union(*plans, *series))
        values = np.array([[points.get(step, math.nan) for step in steps] for points in series])
        values[np.isinf(values)] = math.nan
        measured = np.array([[step in points for step in steps] for points in series])
        planned = np.array([[step in plan for step in steps] for plan in plans])
        return cls(np.array(steps), values, planned & ~measured, np.isnan(values) & measured)


def trajectories(source: Source, figures: Path) -> Section | None:
    """A figure of the median over runs, with the range from the least to the largest."""
    records = source.records
    layout, left_out = _layout(source)
    if not layout.panels or not any(record.measured for record in records.values()):
        return None
    columns = _settings(records, layout.columns) if layout.columns else {"": list(records)}
    title, groups = _groups(records, layout.colour)
    height, width = 0.8 + 2.1 * len(layout.panels), 1.5 + max(7.8, 2.4 * len(columns))
    figure, axes = panels(
        width, height, rows=len(layout.panels), columns=len(columns), sharex="col", sharey="row"
    )
    drawn: list[list[Curve]] = [[] for _ in layout.panels]
    for column, (value, inside) in enumerate(columns.items()):
        for row, panel in enumerate(layout.panels):
            drawn[row] += _draw_panel(axes[row, column], panel, groups, inside, records)
        axes[-1, column].set_xlabel(words(layout.step))
        axes[-1, column].set_xscale("log" if layout.log else "linear")
        if layout.columns:
            axes[0, column].set_title(f"{words(layout.columns)} {words(value)}")
    off: list[str] = []
    for row, panel in enumerate(layout.panels):
        axes[row, 0].set_ylabel(words(panel.label))
        cut = "" if panel.log or not drawn[row] else _cut(axes[row, 0], drawn[row])
        off += [f"{panel.label}: {cut}".replace("\n", " ")] if cut else []
        lines = [lines_of(records, inside, panel) for inside in columns.values()]
        make_room(axes[row, 0], lines)
        for axis, of_column in zip(axes[row], lines, strict=True):
            draw_lines(axis, of_column, groups)
    if any(panel.lines for panel in layout.panels):
        _legend(figure, axes, "")
    elif len(groups) > 1:
        _legend(figure, axes, title)
    every = [curve for curves in drawn for curve in curves]
    values = {
        "svg": save(figure, figures, "trajectories"),
        "missing": sum(int(curve.missing.sum()) for curve in every),
        "nonfinite": sum(int(curve.nonfinite.sum()) for curve in every),
        "off": off,
        "left_out": left_out,
        "runs": max(len(names) for names in groups.values()),
        "cautions": _cautions(records),
    }
    return Section("Along training", "trajectories.html", values)


def _layout(source: Source) -> tuple[Trajectories, list[str]]:
    """What the manifest says to draw; without it, metrics of every run, and what is left out."""
    if source.told.figure is not None or source.measurement is not None:
        return source.told.figure or Trajectories(), []
    drawn, left_out = panels_of(source.records.values())
    return Trajectories(panels=drawn), left_out


def _cautions(records: dict[str, Record]) -> list[str]:
    """Warnings about thresholds, each with the names of its runs unless it is for all."""
    found: Groups = {}
    for name, record in records.items():
        caution = record.for_report.thresholds_caution
        if caution is not None:
            found.setdefault(caution, []).append(name)
    return [
        said if len(names) == len(records) else f"{', '.join(names)} {said}"
        for said, names in found.items()
    ]


def _groups(records: dict[str, Record], colour: str | None) -> tuple[str, Groups]:
    """What the colours stand for, and the runs of each."""
    if colour:
        return words(colour), {words(k): names for k, names in _settings(records, colour).items()}
    configs = [record.config for record in records.values()]
    keys = {key: None for config in configs for key in config}
    differing = [key for key in keys if any(c.get(key) != configs[0].get(key) for c in configs)]
    one = len(differing) == 1
    labels = [
        ", ".join(
            words(level(config.get(key)))
            if one
            else f"{words(key)} {words(level(config.get(key)))}"
            for key in differing
        )
        for config in configs
    ]
    if not differing or max(map(len, labels)) > LONG:
        return "run", {literal(name): [name] for name in records}
    groups = {
        f"{label} ({literal(name)})" if labels.count(label) > 1 else label: [name]
        for label, name in zip(labels, records, strict=True)
    }
    return words(differing[0]) if one else "run", groups


def _settings(records: dict[str, Record], key: str) -> Groups:
    """The runs for each value of a setting."""
    values = sorted({record.config[key] for record in records.values()})
    return {
        level(value): [name for name, record in records.items() if record.config[key] == value]
        for value in values
    }


def _draw_panel(
    axis: Any, panel: Panel, groups: Groups, inside: Sequence[str], records: dict[str, Record]
) -> list[Curve]:
    """Draw a curve for each group of runs that has one, or for each metric; return them."""
    drawn = []
    looks = [
        (words(each.label), each.metric, [n for n in inside if records[n].series(each.metric)[0]])
        for each in panel.lines  # of which a run may have others, and misses none of these
    ] or [
        (label, panel.metric, [name for name in names if name in inside])
        for label, names in groups.items()
    ]
    for i, (label, metric, names) in enumerate(looks):
        curve = Curve.of([records[name] for name in names], metric)
        if curve is not None:
            colour, dashes = colours(len(looks))[i], DASHES[i % len(DASHES)]
            _draw_curve(axis, curve, colour, panel.log, linestyle=dashes, label=label)
            drawn.append(curve)
    if panel.log:
        axis.set_yscale("log")
    return drawn


def _draw_curve(axis: Any, curve: Curve, colour: Any, log: bool, **style: Any) -> None:
    values = np.ma.masked_invalid(curve.values)
    if log:
        values = np.ma.masked_less_equal(values, 0)
    middle: np.ma.MaskedArray[Any, Any] = np.ma.median(values, axis=0)  # type: ignore[no-untyped-call]
    marker = "o" if len(curve.steps) <= FEW_STEPS else None
    axis.plot(curve.steps, middle.filled(np.nan), color=colour, marker=marker, **style)
    if len(curve.values) > 1:
        low, high = values.min(axis=0).filled(np.nan), values.max(axis=0).filled(np.nan)
        axis.fill_between(curve.steps, low, high, color=colour, alpha=0.15, linewidth=0)
    marks = ((curve.missing, "|", 0.02, "0.4"), (curve.nonfinite, "x", 0.98, colour))
    for where, mark, height, shade in marks:
        steps = curve.steps[where.any(axis=0)]
        if len(steps):
            axis.plot(steps, np.full(len(steps), height), mark, color=shade,
                      transform=axis.get_xaxis_transform())  # fmt: skip


def _legend(figure: Any, axes: np.ndarray, title: str) -> None:
    """Name each colour once, whichever panels it is in."""
    found: dict[str, Any] = {}
    for axis in axes.flat:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    columns = max(1, min(6, len(found), LEGEND // (5 + max(map(len, found), default=0))))
    figure.set_figheight(figure.get_figheight() + LINE * (-(-len(found) // columns) - 1))
    figure.legend(found.values(), found, title=title, loc="outside upper center", ncols=columns)


def _cut(axis: Any, curves: Sequence[Curve]) -> str:
    """Keep few values that are far away from flattening the others; say what is out of sight."""
    values = np.sort(np.concatenate([curve.values.ravel() for curve in curves]))
    values = values[np.isfinite(values)]
    few = max(1, int(FEW_FAR * len(values)))
    if len(values) < 2 * few + MANY:
        return ""
    low, high = values[few], values[-few - 1]
    far = FAR * (high - low)
    bottom = low if 0 < far < low - values[0] else values[0]
    top = high if 0 < far < values[-1] - high else values[-1]
    margin = 0.1 * (top - bottom)
    beyond = int(((values < bottom - margin) | (values > top + margin)).sum())
    if not beyond:
        return ""
    axis.set_ylim(bottom - margin, top + margin)
    ends = f"{values[0]:.3g} to {values[-1]:.3g}"
    return f"{beyond} of {len(values)} values are off the axis; all are from {ends}"
