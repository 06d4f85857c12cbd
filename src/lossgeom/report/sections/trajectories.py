"""Metrics along training: one panel per metric, one column and colour per setting."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lossgeom.extras import required
from lossgeom.record import Record
from lossgeom.report import figures as drawing
from lossgeom.report._section import Section
from lossgeom.report._source import Source
from lossgeom.report.figures import level, words

FEW_STEPS = 30  # up to here, every point has a marker


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
    groups = _settings(records, layout.colour) if layout.colour else {r: [r] for r in records}
    with required("matplotlib").rc_context(drawing.STYLE):
        figure = required("matplotlib.figure").Figure(
            figsize=(1.5 + max(7.8, 2.4 * len(columns)), 0.8 + 2.1 * len(layout.panels)),
            layout="constrained",
        )
        axes = figure.subplots(
            len(layout.panels), len(columns), sharex="col", sharey="row", squeeze=False
        )
        counts = Counter[str]()
        for column, inside in enumerate(columns.values()):
            counts += _draw_column(axes[:, column], layout, groups, inside, records)
            axes[-1, column].set_xlabel("step")
        for column, value in enumerate(columns):
            if layout.columns:
                axes[0, column].set_title(f"{words(layout.columns)} {words(value)}")
        for row, panel in enumerate(layout.panels):
            axes[row, 0].set_ylabel(words(panel["label"]))
            _finish_row(axes[row], panel, [_thresholds(records, c) for c in columns.values()])
        _legend(figure, axes, words(layout.colour) if layout.colour else "run", len(groups))
        svg = drawing.save(figure, figures, "trajectories")
    runs = max(len(names) for names in groups.values())
    values = {
        "svg": svg,
        "missing": counts["missing"],
        "nonfinite": counts["nonfinite"],
        "runs": runs,
        "cautions": sorted(
            {
                record.manifest["thresholds_caution"]
                for record in records.values()
                if "thresholds_caution" in record.manifest
            }
        ),
    }
    return Section("Along training", "trajectories.html", values)


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
) -> Counter[str]:
    counts = Counter[str]()
    palette = drawing.colours(len(groups))
    for row, panel in enumerate(layout.panels):
        for i, (label, names) in enumerate(groups.items()):
            chosen = [records[name] for name in names if name in inside]
            curve = Curve.of(chosen, panel["metric"])
            if curve is None:
                continue
            counts.update(missing=int(curve.missing.sum()), nonfinite=int(curve.nonfinite.sum()))
            style = {
                "color": palette[i],
                "linestyle": drawing.DASHES[i % len(drawing.DASHES)],
                "marker": "o" if len(curve.steps) <= FEW_STEPS else None,
            }
            _draw_curve(axes[row], curve, style, words(label), bool(panel["log"]))
    return counts


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


def _thresholds(records: dict[str, Record], names: list[str]) -> dict[str, float]:
    """Thresholds that all runs of a column have in common."""
    found = [records[name].manifest.get("thresholds", {}) for name in names]
    common = set(found[0]).intersection(*found) if found else set()
    return {m: float(found[0][m]) for m in common if len({f[m] for f in found}) == 1}


def _finish_row(
    axes: np.ndarray, panel: dict[str, Any], thresholds: list[dict[str, float]]
) -> None:
    if panel["log"]:
        axes[0].set_yscale("log")
    top = axes[0].get_ylim()[1]
    for axis, found in zip(axes, thresholds, strict=True):
        value = found.get(panel["metric"])
        if value is None:
            continue
        text = f"{panel.get('threshold', 'threshold')} = {value:g}"
        if value <= top:
            axis.axhline(value, color="black", linestyle=(0, (2, 2)), linewidth=1)
            axis.text(
                0.99, value, text, ha="right", va="bottom", transform=axis.get_yaxis_transform()
            )
        else:
            axis.text(0.99, 0.98, f"{text}, above", ha="right", va="top", transform=axis.transAxes)
