"""Lines for the thresholds of a metric, in one panel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lossgeom.recording.for_report import Panel
from lossgeom.recording.record import Record
from lossgeom.report.figures import THRESHOLD, colours, threshold, words

PAPER = {"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.5}
LINE = 0.11  # of text, as a part of a panel


@dataclass(frozen=True)
class Line:
    """A threshold, and the runs that it is for."""

    value: float
    text: str
    names: tuple[str, ...]


def lines_of(records: dict[str, Record], names: Sequence[str], panel: Panel) -> list[Line]:
    """The thresholds of some runs, smallest first; one for all that have it in common."""
    found: dict[tuple[float, str], list[str]] = {}
    for name in names:
        told = records[name].for_report
        if panel.metric in told.thresholds:
            formula = panel.threshold or told.threshold_formulas.get(panel.metric, "threshold")
            found.setdefault((told.thresholds[panel.metric], formula), []).append(name)
    return [
        Line(value, threshold(formula, value), tuple(having))
        for (value, formula), having in sorted(found.items())
    ]


def draw_lines(axis: Any, lines: Sequence[Line], groups: dict[str, list[str]]) -> None:
    """Draw a line for all runs in black, and others in the colour and with the name of their runs.

    What is outside of the panel is said in words at the edge next to it.
    """
    bottom, top = axis.get_ylim()
    sides = ((0.01, "left"), (0.99, "right"))  # by turns, first where curves have yet to rise
    for i, line in enumerate(lines):
        (x, align), (name, colour) = sides[i % 2], _whose(line, groups)
        text = f"{line.text}{f' ({name})' if name and len(lines) > 1 else ''}"
        if bottom <= line.value <= top:
            own = {"color": colour} if len(lines) > 1 else {}
            axis.axhline(line.value, **{**THRESHOLD, **own})
            axis.text(x, line.value, text, ha=align, va="bottom", bbox=PAPER,
                      transform=axis.get_yaxis_transform())  # fmt: skip
            continue
        above, shift = line.value > top, LINE * (i // 2)
        axis.text(x, 0.98 - shift if above else 0.02 + shift, ha=align, bbox=PAPER,
                  s=f"{text}, {'above' if above else 'below'}",
                  va="top" if above else "bottom", transform=axis.transAxes)  # fmt: skip


def _whose(line: Line, groups: dict[str, list[str]]) -> tuple[str, Any]:
    """The name and the colour of the runs of a line, if they are of one group."""
    of = [i for i, names in enumerate(groups.values()) if {*names} & {*line.names}]
    if len(of) > 1:
        return "", "black"
    return words(list(groups)[of[0]]), colours(len(groups))[of[0]]
