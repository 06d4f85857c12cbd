"""Bounds on one model in a table, and drawn beside what they bound."""

from __future__ import annotations

import math
from itertools import groupby
from pathlib import Path
from typing import Any

from lossgeom.plot.style import literal, panels
from lossgeom.recording.forms import parse
from lossgeom.recording.record_format import Row
from lossgeom.report._section import Section
from lossgeom.report._source import Source
from lossgeom.report.figures import save
from lossgeom.report.sections.bound import STATUSES

TELLING, VACUOUS = "#00508a", "#b3541e"
HEIGHT = 0.29  # inches of a line
LOOSE = 1e6  # times what is measured, which would leave no room for the others
PAPER = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
LEGEND: dict[str, dict[str, Any]] = {
    "measured": {"marker": "o", "color": "black", "markersize": 4.5},
    "certified bound": {"marker": "<", "color": TELLING, "markersize": 6.5},
    "estimate of a bound": {
        "marker": "<",
        "color": TELLING,
        "markersize": 6.5,
        "markerfacecolor": "white",
    },
    "vacuous": {"marker": "<", "color": VACUOUS, "markersize": 6.5},
    "known without it": {"marker": "|", "color": "0.4", "markersize": 12},
}


def comparison(source: Source, figures: Path) -> Section | None:
    """Every bound with what it bounds, whether it says anything, and what would change that."""
    compared = source.manifest.get("compared")
    if compared is None:
        return None
    rows = parse(tuple[Row, ...], compared)
    drawn = [
        row for row in rows
        if row.bound is not None and 0 < row.bound.value < math.inf and (row.tightness or 1) < LOOSE
    ]  # fmt: skip
    figure = _figure(drawn, figures) if drawn else None
    values = {"rows": rows, "statuses": STATUSES, "figure": figure}
    return Section("Bounds beside what they bound", "comparison.html", values)


def _figure(rows: list[Row], figures: Path) -> str:
    families = groupby(rows, lambda row: row.family)
    lines = [line for family, members in families for line in (family, *members)]
    figure, ((axis,),) = panels(9.6, 1.2 + HEIGHT * len(lines))
    for y, line in enumerate(lines):
        if isinstance(line, Row):
            _draw(axis, y, line, line.bound)
    axis.set(xscale="log", xlabel="value, in the units of each", ylim=(len(lines) - 0.4, -0.6))
    names = [line.name if isinstance(line, Row) else line.partition(" (")[0] for line in lines]
    axis.set_yticks(range(len(lines)), map(literal, names))
    for line, label in zip(lines, axis.get_yticklabels(), strict=True):
        label.set_fontweight("normal" if isinstance(line, Row) else "bold")
    axis.tick_params(axis="y", length=0)
    axis.margins(x=0.1)
    axis.grid(axis="x", color="0.9")
    axis.set_axisbelow(True)
    for label, style in LEGEND.items():
        axis.plot([], [], linestyle="", label=label, **style)
    figure.legend(loc="outside upper center", ncols=len(LEGEND))
    return save(figure, figures, "bounds")


def _draw(axis: Any, y: int, row: Row, bound: Any) -> None:
    """Draw a bound and what it bounds, with a line from one to the other."""
    colour = VACUOUS if bound.vacuous else TELLING
    pointing = "<" if bound.side == "upper" else ">"  # to where the truth is
    if row.measured is not None and row.measured > 0:
        axis.plot([row.measured, bound.value], [y, y], color=colour, linewidth=1.2, alpha=0.4)
        axis.plot(row.measured, y, **LEGEND["measured"], linestyle="")
    if 0 < bound.trivial < math.inf:
        axis.plot(bound.trivial, y, **LEGEND["known without it"], linestyle="")
    face = colour if bound.certified else "white"
    axis.plot(bound.value, y, pointing, color=colour, markerfacecolor=face, markersize=6.5)
    if row.tightness is not None and math.isfinite(row.tightness):
        right = bound.side == "upper"
        axis.annotate(f"x {row.cells[4]}", (bound.value, y), (9 if right else -9, 0),
                      textcoords="offset points", va="center", ha="left" if right else "right",
                      color=colour, bbox=PAPER)  # fmt: skip
