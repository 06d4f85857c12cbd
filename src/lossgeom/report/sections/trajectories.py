"""Metrics along training: one panel per metric, one column and colour per setting."""

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
from lossgeom.report.figures import level, words
from lossgeom.report.sections._thresholds import draw_lines, lines_of

FEW_STEPS = 30  # up to here, every point has a marker
LONG = 60  # characters, beyond which a legend had better name folders
FEW_FAR, FAR = 0.05, 4.0  # values that are this few and times the range of the others away
MANY = 3  # values that have to be left


@dataclass(frozen=True)
class Layout:
    """How to draw, from the manifest's ``figure``; without one, every metric of every run.

    Attributes:
        columns: config key with one column of panels per value; none for a single column.
        colour: config key with one colour per value; none for a colour per run.
        panels: one dict per row of panels: ``metric``, ``label``, ``log``, and how to call its
            ``threshold`` if it has one.
    """

    columns: str | None
    colour: str | None
    panels: Sequence[dict[str, Any]]

    @classmethod
    def of(cls, source: Source) -> Layout:
        """What the manifest says, or what the rows suggest."""
        if "figure" in source.manifest:
            return cls(**source.manifest["figure"])
        metrics = {
            row["metric"]: None
            for record in source.records.values()
            for row in record.rows()
            if "metric" in row
        }
        panels = [{"metric": m, "label": m.replace("_", " "), "log": False} for m in metrics]
        return cls(None, None, panels)


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
        """From the records; None if the metric is in none of them."""
        series = [dict(zip(*record.series(metric), strict=True)) for record in records]
        plans = [set(record.manifest.get("planned_steps", ())) for record in records]
        if not any(series):
            return None
        steps = sorted(set().union(*plans, *series))
        values = np.array([[points.get(step, math.nan) for step in steps] for points in series])
        values[np.isinf(values)] = math.nan
        measured = np.array([[step in points for step in steps] for points in series])
        missing = [
            [step in plan and step not in points for step in steps]
            for plan, points in zip(plans, series, strict=True)
        ]
        return cls(np.array(steps), values, np.array(missing), np.isnan(values) & measured)


def trajectories(source: Source, figures: Path) -> Section | None:
    """The figure: the median over runs with the range between the least and the largest."""
    layout = Layout.of(source)
    records = source.records
    if source.measurement is not None:
        return None
    if not layout.panels or not any(record.measured for record in records.values()):
        return None
    columns = _settings(records, layout.columns) if layout.columns else {"": list(records)}
    title, groups = _groups(records, layout.colour)
    off: list[str] = []
    with required("matplotlib").rc_context(drawing.STYLE):
        figure = required("matplotlib.figure").Figure(
            figsize=(1.5 + max(7.8, 2.4 * len(columns)), 0.8 + 2.1 * len(layout.panels)),
            layout="constrained",
        )
        axes = figure.subplots(
            len(layout.panels), len(columns), sharex="col", sharey="row", squeeze=False
        )
        drawn: list[list[Curve]] = [[] for _ in layout.panels]
        for column, inside in enumerate(columns.values()):
            for row, curves in enumerate(
                _draw_column(axes[:, column], layout, groups, inside, records)
            ):
                drawn[row] += curves
            axes[-1, column].set_xlabel("step")
        for column, value in enumerate(columns):
            if layout.columns:
                axes[0, column].set_title(f"{words(layout.columns)} {words(value)}")
        for row, panel in enumerate(layout.panels):
            axes[row, 0].set_ylabel(words(panel["label"]))
            cut = _finish_row(axes[row], panel, drawn[row])
            off += [f"{panel['label']}: {cut}".replace("\n", " ")] if cut else []
            for axis, inside in zip(axes[row], columns.values(), strict=True):
                draw_lines(axis, lines_of(records, inside, panel), groups)
        _legend(figure, axes, title, len(groups))
        svg = drawing.save(figure, figures, "trajectories")
    runs = max(len(names) for names in groups.values())
    every = [curve for curves in drawn for curve in curves]
    values = {
        "svg": svg,
        "missing": sum(int(curve.missing.sum()) for curve in every),
        "nonfinite": sum(int(curve.nonfinite.sum()) for curve in every),
        "off": off,
        "runs": runs,
        "cautions": _cautions(records),
    }
    return Section("Along training", "trajectories.html", values)


def _cautions(records: dict[str, Record]) -> list[str]:
    """What is said of thresholds, and of which runs if it is not said of all."""
    found: dict[str, list[str]] = {}
    for name, record in records.items():
        if "thresholds_caution" in record.manifest:
            found.setdefault(record.manifest["thresholds_caution"], []).append(name)
    return [
        said if len(names) == len(records) else f"{', '.join(names)} {said}"
        for said, names in found.items()
    ]


def _groups(records: dict[str, Record], colour: str | None) -> tuple[str, dict[str, list[str]]]:
    """The runs of each colour, by what to call them, and what that is."""
    if colour:
        return words(colour), _settings(records, colour)
    configs = [record.config for record in records.values()]
    keys = {key: None for config in configs for key in config}
    differing = [key for key in keys if any(c.get(key) != configs[0].get(key) for c in configs)]
    one = len(differing) == 1
    labels = [
        ", ".join(
            level(config.get(key)) if one else f"{words(key)} {level(config.get(key))}"
            for key in differing
        )
        for config in configs
    ]
    if not differing or max(map(len, labels)) > LONG:
        return "run", {name: [name] for name in records}
    labels = [
        f"{label} ({name})" if labels.count(label) > 1 else label
        for label, name in zip(labels, records, strict=True)
    ]
    title = words(differing[0]) if one else "run"
    return title, {label: [name] for label, name in zip(labels, records, strict=True)}


def _settings(records: dict[str, Record], key: str) -> dict[str, list[str]]:
    """Names of the runs by the value of a setting."""
    values = sorted({record.config[key] for record in records.values()})
    return {
        level(value): [name for name, record in records.items() if record.config[key] == value]
        for value in values
    }


def _draw_column(
    axes: np.ndarray,
    layout: Layout,
    groups: dict[str, list[str]],
    inside: list[str],
    records: dict[str, Record],
) -> list[list[Curve]]:
    """The curves that were drawn, panel by panel."""
    drawn: list[list[Curve]] = [[] for _ in layout.panels]
    for row, panel in enumerate(layout.panels):
        for i, (label, names) in enumerate(groups.items()):
            chosen = [records[name] for name in names if name in inside]
            curve = Curve.of(chosen, panel["metric"])
            if curve is None:
                continue
            style = {
                "color": drawing.colours(len(groups))[i],
                "linestyle": drawing.DASHES[i % len(drawing.DASHES)],
                "marker": "o" if len(curve.steps) <= FEW_STEPS else None,
            }
            _draw_curve(axes[row], curve, style, words(label), bool(panel["log"]))
            drawn[row].append(curve)
    return drawn


def _legend(figure: Any, axes: np.ndarray, title: str, groups: int) -> None:
    if groups < 2:
        return
    found: dict[str, Any] = {}
    for axis in axes.flat:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    figure.legend(
        found.values(), found, title=title, loc="outside upper center", ncols=min(6, len(found))
    )


def _draw_curve(axis: Any, curve: Curve, style: dict[str, Any], label: str, log: bool) -> None:
    values = np.ma.masked_invalid(curve.values)
    if log:
        values = np.ma.masked_less_equal(values, 0)
    middle: np.ma.MaskedArray[Any, Any] = np.ma.median(values, axis=0)  # type: ignore[no-untyped-call]
    axis.plot(curve.steps, middle.filled(np.nan), label=label, **style)
    low, high = values.min(axis=0).filled(np.nan), values.max(axis=0).filled(np.nan)
    if len(curve.values) > 1:
        axis.fill_between(curve.steps, low, high, color=style["color"], alpha=0.15, linewidth=0)
    for where, marker, height in ((curve.missing, "|", 0.02), (curve.nonfinite, "x", 0.98)):
        steps = curve.steps[where.any(axis=0)]
        if len(steps):
            across = axis.get_xaxis_transform()
            colour = style["color"] if marker == "x" else "0.4"
            axis.plot(steps, np.full(len(steps), height), marker, color=colour, transform=across)


def _finish_row(axes: np.ndarray, panel: dict[str, Any], drawn: Sequence[Curve]) -> str:
    """Set the axis; says what is out of its sight."""
    if panel["log"]:
        axes[0].set_yscale("log")
    return "" if panel["log"] or not drawn else _cut(axes[0], drawn)


def _cut(axis: Any, curves: Sequence[Curve]) -> str:
    """Let few values that are far away not flatten the others; says what is out of sight."""
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
