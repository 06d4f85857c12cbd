"""Lines for the thresholds of a metric, in one panel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lossgeom.recording.edge_lines import EdgeLine, edge_line
from lossgeom.recording.for_report import Panel
from lossgeom.recording.record import Record
from lossgeom.report.figures import THRESHOLD, colours, threshold, words

PAPER = {"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.5}
LINE = 0.11  # of text, as a part of a panel


@dataclass(frozen=True)
class Line:
    """A threshold, and the runs that it is for.

    Attributes:
        value: of a constant one; of one that changes, NaN.
        text: what it is.
        names: of the runs.
        steps, values: of one that changes.
    """

    value: float
    text: str
    names: tuple[str, ...]
    steps: tuple[int, ...] = ()
    values: tuple[float, ...] = ()


def lines_of(records: dict[str, Record], names: Sequence[str], panel: Panel) -> list[Line]:
    """The thresholds of some runs, constant ones first; one for all that have it in common."""
    constant: dict[tuple[float, str], list[str]] = {}
    changing: dict[EdgeLine, list[str]] = {}
    for name in names:
        told = records[name].for_report
        if panel.metric in told.thresholds:
            formula = panel.threshold or told.threshold_formulas.get(panel.metric, "threshold")
            constant.setdefault((told.thresholds[panel.metric], formula), []).append(name)
            continue
        line = edge_line(records[name], panel.metric)
        levels = {value for value in line.values if not math.isnan(value)} if line else set()
        if line and len(levels) == 1:
            constant.setdefault((levels.pop(), line.formula), []).append(name)
        elif line:
            changing.setdefault(line, []).append(name)
    return [
        Line(value, threshold(formula, value), tuple(having))
        for (value, formula), having in sorted(constant.items())
    ] + [
        Line(math.nan, line.formula, tuple(having), line.steps, line.values)
        for line, having in changing.items()
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
        own = {"color": colour} if len(lines) > 1 else {}
        known = [value for value in line.values or (line.value,) if not math.isnan(value)]
        if any(bottom <= value <= top for value in known):
            _draw(axis, line, (bottom, top), (x, align), {**THRESHOLD, **own}, text)
            continue
        above, shift = max(known) > top, LINE * (i // 2)
        axis.text(x, 0.98 - shift if above else 0.02 + shift, ha=align, bbox=PAPER,
                  s=f"{text}, {'above' if above else 'below'}",
                  va="top" if above else "bottom", transform=axis.transAxes)  # fmt: skip
    axis.set_ylim(bottom, top)


def _draw(
    axis: Any, line: Line, view: tuple[float, float], side: tuple[float, str], style: Any, text: str
) -> None:
    """Draw a line that is in view, with its name at one side of what is seen of it."""
    x, align = side
    if not line.values:
        axis.axhline(line.value, **style)
        axis.text(x, line.value, text, ha=align, va="bottom", bbox=PAPER,
                  transform=axis.get_yaxis_transform())  # fmt: skip
        return
    axis.plot(line.steps, line.values, **style)
    points = [
        point for point in zip(line.steps, line.values, strict=True) if not math.isnan(point[1])
    ]
    seen = [point for point in points if view[0] <= point[1] <= view[1]]
    comes, goes = seen[0] != points[0], seen[-1] != points[-1]
    if comes or goes:  # named where it is lost from sight, away from lines that stay in it
        align = "left" if comes else "right"
    step, value = seen[0 if align == "left" else -1]
    axis.text(step, value, text, ha=align, va="top" if comes or goes else "bottom", bbox=PAPER)


def _whose(line: Line, groups: dict[str, list[str]]) -> tuple[str, Any]:
    """The name and the colour of the runs of a line, if they are of one group."""
    of = [i for i, names in enumerate(groups.values()) if {*names} & {*line.names}]
    if len(of) > 1:
        return "", "black"
    return words(list(groups)[of[0]]), colours(len(groups))[of[0]]
