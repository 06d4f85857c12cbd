"""Metrics along training: one panel per metric, one column and colour per setting."""

from __future__ import annotations

from pathlib import Path

from lossgeom.plot.curves import Curve, draw_metric
from lossgeom.plot.runs import groups_of, settings
from lossgeom.plot.style import legend, panels, words
from lossgeom.plot.trajectories import cautions_of
from lossgeom.recording.metric_figures import Trajectories
from lossgeom.report._section import Section
from lossgeom.report._source import Source
from lossgeom.report.figures import save
from lossgeom.report.sections._all_metrics import panels_of


def trajectories(source: Source, figures: Path) -> Section | None:
    """A figure of the median over runs, with the range from the least to the largest."""
    records = source.records
    layout, left_out = _layout(source)
    if not layout.panels or not any(record.measured for record in records.values()):
        return None
    columns = settings(records, layout.columns) if layout.columns else {"": list(records)}
    title, groups = groups_of(records, layout.colour)
    height, width = 0.8 + 2.1 * len(layout.panels), 1.5 + max(7.8, 2.4 * len(columns))
    figure, axes = panels(
        width, height, rows=len(layout.panels), columns=len(columns), sharex="col", sharey="row"
    )
    every: list[Curve] = []
    off = []
    for row, panel in zip(axes, layout.panels, strict=True):
        curves, cut = draw_metric(row, panel, groups, columns, records)
        every += curves
        off += [cut] if cut else []
    for axis in axes[-1]:
        axis.set_xlabel(words(layout.step))
        axis.set_xscale("log" if layout.log else "linear")
    for value, axis in zip(columns, axes[0], strict=True):
        axis.set_title(f"{words(layout.columns)} {words(value)}" if layout.columns else "")
    metrics = any(panel.lines for panel in layout.panels)  # are what colours stand for
    if len(groups) > 1 or metrics:
        legend(figure, axes, "" if metrics else title)
    values = {
        "svg": save(figure, figures, "trajectories"),
        "missing": sum(int(curve.missing.sum()) for curve in every),
        "nonfinite": sum(int(curve.nonfinite.sum()) for curve in every),
        "bars": any(curve.bars for curve in every),
        "off": off,
        "left_out": left_out,
        "runs": max(len(names) for names in groups.values()),
        "cautions": cautions_of(records),
    }
    return Section("Along training", "trajectories.html", values)


def _layout(source: Source) -> tuple[Trajectories, list[str]]:
    """What the manifest says to draw; without it, metrics of every run, and what is left out."""
    if source.told.figure is not None or source.measurement is not None:
        return source.told.figure or Trajectories(), []
    drawn, left_out = panels_of(source.records.values())
    return Trajectories(panels=drawn), left_out
