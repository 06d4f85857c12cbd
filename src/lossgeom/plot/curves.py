"""Curves of a metric over steps, in panels that share their y axis."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lossgeom.plot.runs import Groups
from lossgeom.plot.style import DASHES, colours, words
from lossgeom.plot.thresholds import draw_lines, lines_of, make_room, show
from lossgeom.plot.units import with_unit
from lossgeom.recording.metric_figures import Panel
from lossgeom.recording.record import Record

FEW_STEPS = 30  # up to here, every point has a marker
FEW_FAR, FAR = 0.05, 9.0  # values that are this few and times the range of the others away
MANY = 10  # values that have to be left


@dataclass(frozen=True)
class Curve:
    """A metric over the steps of the runs that share a setting.

    Attributes:
        steps: (S,) planned or measured ones.
        values: (R, S), one row per run; NaN where there is no value or none that is finite.
        errors: (R, S), standard errors or residuals; 0 where there is none.
        missing: (R, S), where a planned value is not there.
        nonfinite: (R, S), where NaN or infinity was measured.
    """

    steps: np.ndarray
    values: np.ndarray
    errors: np.ndarray
    missing: np.ndarray
    nonfinite: np.ndarray

    @classmethod
    def of(cls, records: Sequence[Record], metric: str) -> Curve | None:
        """Read a metric from records; None if no record has it."""
        series = [
            {row["step"]: row for row in record.rows() if row.get("metric") == metric}
            for record in records
        ]
        if not any(series):
            return None
        plans = [set(record.for_report.planned_steps) for record in records]
        steps = sorted(set().union(*plans, *series))
        rows = [[points.get(step, {}) for step in steps] for points in series]
        values = np.array([[row.get("value", math.nan) for row in of_run] for of_run in rows])
        values[np.isinf(values)] = math.nan
        errors = np.array([[_error(row) for row in of_run] for of_run in rows])
        measured = np.array([[step in points for step in steps] for points in series])
        planned = np.array([[step in plan for step in steps] for plan in plans])
        nonfinite = np.isnan(values) & measured
        return cls(np.array(steps), values, errors, planned & ~measured, nonfinite)

    @property
    def bars(self) -> bool:
        """Whether it is drawn with its errors: those of one run, where they are known."""
        return len(self.values) == 1 and bool(self.errors.any())


def draw_metric(
    axes: Sequence[Any] | np.ndarray,
    panel: Panel,
    groups: Groups,
    columns: Groups,
    records: dict[str, Record],
    reach: float = 1.0,
) -> tuple[list[Curve], str]:
    """Draw a metric in panels side by side that share their y axis, with its thresholds.

    Args:
        axes: matplotlib's.
        panel: the metric, and how to draw it.
        groups: the runs that share a curve: their median, with the range from the least to the
            largest.
        columns: the runs of each of the panels.
        records: by name.
        reach: how many times as high as values alone ask for an axis may be, to show thresholds.

    Returns:
        The curves, and what is said of values that are out of sight.
    """
    curves = [
        curve
        for axis, inside in zip(axes, columns.values(), strict=True)
        for curve in _draw_panel(axis, panel, groups, inside, records)
    ]
    axes[0].set_ylabel(words(with_unit(panel, records.values())))
    off = "" if panel.log or not curves else _cut(axes[0], curves)
    lines = [lines_of(records, inside, panel) for inside in columns.values()]
    for of_column in lines if reach > 1 else ():
        show(axes[0], of_column, reach)
    make_room(axes[0], lines)
    for axis, of_column in zip(axes, lines, strict=True):
        draw_lines(axis, of_column, groups)
    return curves, f"{panel.label}: {off}".replace("\n", " ") if off else ""


def _error(row: Mapping[str, Any]) -> float:
    """How far a value may be off: what is known of it, and finite."""
    error = row.get("stderr") or row.get("residual") or 0.0
    return error if math.isfinite(error) else 0.0


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
    if curve.bars:
        errors = np.where(curve.errors[0] > 0, curve.errors[0], math.nan)
        axis.errorbar(curve.steps, middle.filled(np.nan), errors, fmt="none", ecolor=colour,
                      elinewidth=1, capsize=0)  # fmt: skip
    if len(curve.values) > 1:
        low, high = values.min(axis=0).filled(np.nan), values.max(axis=0).filled(np.nan)
        axis.fill_between(curve.steps, low, high, color=colour, alpha=0.15, linewidth=0)
    marks = ((curve.missing, "|", 0.02, "0.4"), (curve.nonfinite, "x", 0.98, colour))
    for where, mark, height, shade in marks:
        steps = curve.steps[where.any(axis=0)]
        if len(steps):
            axis.plot(steps, np.full(len(steps), height), mark, color=shade,
                      transform=axis.get_xaxis_transform())  # fmt: skip


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
