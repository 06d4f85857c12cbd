"""Lines for the thresholds of a metric, in one panel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lossgeom.recording.record import Record
from lossgeom.report import figures as drawing

PAPER = {"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.5}
LINE = 0.11  # of text, as a part of a panel


@dataclass(frozen=True)
class Line:
    """A threshold, and the runs that it is for."""

    value: float
    text: str
    names: tuple[str, ...]


def lines_of(records: dict[str, Record], names: Sequence[str], panel: dict[str, Any]) -> list[Line]:
    """The thresholds of some runs, smallest first; one for all that have it in common."""
    found: dict[tuple[float, str], list[str]] = {}
    for name in names:
        manifest, metric = records[name].manifest, panel["metric"]
        if metric in manifest.get("thresholds", {}):
            formula = panel.get("threshold") or manifest.get("threshold_formulas", {}).get(metric)
            value = float(manifest["thresholds"][metric])
            found.setdefault((value, formula or "threshold"), []).append(name)
    return [
        Line(value, drawing.threshold(formula, value), tuple(having))
        for (value, formula), having in sorted(found.items())
    ]


def draw_lines(axis: Any, lines: Sequence[Line], groups: dict[str, list[str]]) -> None:
    """One for all runs is black; else each has the colour and the name of the runs that it is for.

    What is outside of the panel is said in words at the edge next to it.
    """
    bottom, top = axis.get_ylim()
    sides = ((0.01, "left"), (0.99, "right"))  # by turns, first where curves have yet to rise
    for i, line in enumerate(lines):
        (x, align), (name, colour) = sides[i % 2], _whose(line, groups)
        text = f"{line.text}{f' ({name})' if name and len(lines) > 1 else ''}"
        if bottom <= line.value <= top:
            colour = colour if len(lines) > 1 else "black"
            axis.axhline(line.value, color=colour, linestyle=(0, (2, 2)), linewidth=1)
            axis.text(x, line.value, text, ha=align, va="bottom", bbox=PAPER,
                      transform=axis.get_yaxis_transform())  # fmt: skip
            continue
        above, shift = line.value > top, LINE * (i // 2)
        axis.text(x, 0.98 - shift if above else 0.02 + shift, ha=align, bbox=PAPER,
                  s=f"{text}, {'above' if above else 'below'}",
                  va="top" if above else "bottom", transform=axis.transAxes)  # fmt: skip


def _whose(line: Line, groups: dict[str, list[str]]) -> tuple[str, Any]:
    """The name and the colour of the runs of a line, if they are of one group."""
    palette = drawing.colours(len(groups))
    of = [i for i, names in enumerate(groups.values()) if {*names} & {*line.names}]
    return (drawing.words(list(groups)[of[0]]), palette[of[0]]) if len(of) == 1 else ("", "black")
