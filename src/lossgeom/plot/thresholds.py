"""Lines for the thresholds of a metric, in one panel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lossgeom.plot.style import BEHIND, THRESHOLD, colours, threshold
from lossgeom.recording.edge_lines import EdgeLine, edge_line
from lossgeom.recording.metric_figures import Panel
from lossgeom.recording.record import Record

ROOM = 1.08  # times a threshold, for its name above it
LINE = 0.11  # of text, as a part of a panel
MANY = 8  # thresholds, beyond which none is named any more


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


def show(axis: Any, lines: Sequence[Line], reach: float) -> None:
    """Raise the end of an axis to the largest threshold, or so many times as high at most."""
    known = [value for line in lines for value in _known(line)]
    low, high = axis.get_ylim()
    if known and max(known) > high:
        axis.set_ylim(low, max(high, min(ROOM * max(known), reach * high)))


def make_room(axis: Any, columns: Sequence[Sequence[Line]]) -> None:
    """Lengthen an axis where words about lines out of its view would stand on its curves."""
    if not any(columns):
        return
    scale, view = axis.yaxis.get_transform(), axis.get_ylim()
    sides = [[_side(line, view) for line in lines] for lines in columns]
    low, high = scale.transform(view)
    counts = {side: [of.count(side) for of in sides if len(of) <= MANY] for side in (-1, 1)}
    most = {side: max(of, default=0) for side, of in counts.items()}
    down, up = ((most[side] + 1) // 2 * 1.2 * LINE * (high - low) for side in (-1, 1))
    axis.set_ylim(*scale.inverted().transform((low - down, high + up)))


def draw_lines(axis: Any, lines: Sequence[Line], groups: dict[str, list[str]]) -> None:
    """Draw a line for all runs in black, and others in the colour and with the name of their runs.

    What is outside of the panel is said in words at the edge next to it. Many are not named.
    """
    view = axis.get_ylim()
    if len(lines) > MANY:
        _draw_many(axis, lines, groups, view)
        return
    sides = ((0.01, "left"), (0.99, "right"))  # by turns, first where curves have yet to rise
    for i, line in enumerate(lines):
        (x, align), (name, colour) = sides[i % 2], _whose(line, groups)
        text = f"{line.text}{f' ({name})' if name and len(lines) > 1 else ''}"
        own = {"color": colour} if len(lines) > 1 else {}
        side, shift = _side(line, view), LINE * (i // 2)
        if not side:
            _draw(axis, line, view, (x, align), {**THRESHOLD, **own}, text)
            continue
        axis.text(x, 0.98 - shift if side > 0 else 0.02 + shift, ha=align, **BEHIND,
                  s=f"{text} is {'above' if side > 0 else 'below'} this range",
                  va="top" if side > 0 else "bottom", transform=axis.transAxes)  # fmt: skip
    if lines:
        axis.set_ylim(view)


def _draw_many(
    axis: Any, lines: Sequence[Line], groups: dict[str, list[str]], view: tuple[float, float]
) -> None:
    """Draw lines without their names, and say how many are not in view."""
    hidden = 0
    for line in lines:
        steps = line.steps or axis.get_xlim()
        values = line.values or (line.value, line.value)
        hidden += bool(_side(line, view))
        axis.plot(steps, values, **{**THRESHOLD, "color": _whose(line, groups)[1]})
    if hidden:
        text = f"{hidden} of {len(lines)} thresholds are out of this range"
        axis.text(0.99, 0.98, text, ha="right", va="top", transform=axis.transAxes, **BEHIND)
    axis.set_ylim(view)


def _side(line: Line, view: tuple[float, float]) -> int:
    """Return 0 for a line in view, 1 for one above it, -1 for one below."""
    known = _known(line)
    if any(view[0] <= value <= view[1] for value in known):
        return 0
    return 1 if max(known) > view[1] else -1


def _known(line: Line) -> list[float]:
    return [value for value in line.values or (line.value,) if not math.isnan(value)]


def _draw(
    axis: Any, line: Line, view: tuple[float, float], side: tuple[float, str], style: Any, text: str
) -> None:
    """Draw a line that is in view, with its name at one side of what is seen of it."""
    x, align = side
    if not line.values:
        axis.axhline(line.value, **style)
        axis.text(x, line.value, text, ha=align, va="bottom", **BEHIND,
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
    axis.text(step, value, text, ha=align, va="top" if comes or goes else "bottom", **BEHIND)


def _whose(line: Line, groups: dict[str, list[str]]) -> tuple[str, Any]:
    """The name and the colour of the runs of a line, if they are of one group."""
    of = [i for i, names in enumerate(groups.values()) if {*names} & {*line.names}]
    if len(of) > 1:
        return "", "black"
    return list(groups)[of[0]], colours(len(groups))[of[0]]
