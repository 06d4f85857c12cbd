"""Short representations of results: in a line, and as a table in a notebook."""

from __future__ import annotations

import dataclasses
import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lossgeom.messages.wording import printable

FEW = 6  # numbers or members that are shown one by one
MANY = 12  # rows of a table
LONG = 200  # characters of a cell
WIDTH, HEIGHT, EDGE = 180, 36, 3  # pixels of a sparkline, with a part at each end that stays free
ROUNDING = 1e-6  # relative
BUCKETS = 90  # parts of a sparkline of which only the extremes are drawn


def short(thing: Any) -> str:
    """One line for a dataclass, with few numbers of each tensor, or its shape and range.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Norms:
    ...     values: Tensor
    ...     known: Tensor
    ...     vectors: Tensor
    ...     __repr__ = short
    >>> Norms(torch.arange(10.0) / 3, torch.arange(10) > 1, torch.ones(10, 2))
    Norms(values=(10,) from 0 to 3, known=8 of 10, vectors=(10, 2))
    >>> Norms(torch.tensor([2.5, 1.0]), torch.tensor([True]), torch.ones(10, 2))
    Norms(values=[2.5, 1], known=[True], vectors=(10, 2))
    """
    shown = ((part.name, getattr(thing, part.name)) for part in _fields(thing))
    return f"{type(thing).__name__}({', '.join(f'{name}={_part(value)}' for name, value in shown)})"


def _fields(thing: Any) -> list[dataclasses.Field[Any]]:
    return [part for part in dataclasses.fields(thing) if part.repr]


def _part(value: Any) -> str:
    if isinstance(value, Tensor):
        return _tensor(value.detach())
    if isinstance(value, (Mapping, tuple, list)) and len(value) > FEW:
        return f"<{len(value)} of them>"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {_part(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (tuple, list)):
        return "(" + ", ".join(map(_part, value)) + ")"
    return f"{value:.6g}" if isinstance(value, float) else repr(value)


def _tensor(values: Tensor) -> str:
    if values.ndim == 0:
        return _part(values.item())
    if values.ndim == 1 and len(values) <= FEW:
        return "[" + ", ".join(map(_part, values.tolist())) + "]"
    shape = str(tuple(values.shape))
    if values.dtype == torch.bool:
        return f"{int(values.sum())} of {values.numel()}"
    if values.ndim > 1 or values.is_complex():
        return shape
    return f"{shape} from {_part(values.min().item())} to {_part(values.max().item())}"


class Svg(str):
    """A picture in a table, which stands there as it is."""


def in_table(thing: Any) -> str:
    """The fields of a dataclass as HTML, without those that are None or NaN.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Found:
    ...     name: str
    ...     value: float
    ...     error: float | None = None
    >>> print(in_table(Found("<b>", 2.5)))
    <div ...>Found<...><table><tr><th ...>name<...><td ...>&lt;b&gt;<...>2.5<...></table></div>
    """
    shown = {part.name.replace("_", " "): getattr(thing, part.name) for part in _fields(thing)}
    rows = [
        (name, value if isinstance(value, str) else _part(value))
        for name, value in shown.items()
        if not (value is None or (isinstance(value, float) and math.isnan(value)))
    ]
    return html_table(type(thing).__name__, rows)


def html_table(title: str, rows: Sequence[Sequence[str]]) -> str:
    """A small table with a title, as HTML that does nothing and asks for nothing.

    It has no colours of its own, so that it suits dark pages, too. Foreign text is escaped, keeps
    its direction to itself, and is cut where it is long.

    Args:
        title: above it.
        rows: their cells, of which the first is a heading, as are all of the first row where there
            are more than two; an Svg stands as it is. Of many rows, the first are shown.
    """
    more = f"<tr><td>and {len(rows) - MANY} more</td></tr>" if len(rows) > MANY else ""
    body = "".join(
        "<tr>" + "".join(_cell(cell, not j or len(row) > 2 > i + 1) for j, cell in enumerate(row))
        + "</tr>"
        for i, row in enumerate(rows[:MANY])
    )  # fmt: skip
    whole = f"<strong>{_escaped(title)}</strong><table>{body}{more}</table>"
    return f'<div class="tex2jax_ignore mathjax_ignore">{whole}</div>'  # no formula is meant


def _cell(text: str, heading: bool) -> str:
    kind = "th" if heading else "td"
    content = text if isinstance(text, Svg) else _escaped(text)
    return f'<{kind} style="text-align: left">{content}</{kind}>'


def _escaped(text: str) -> str:
    cut = text if len(text) <= LONG else text[:LONG] + " ..."
    return f"<bdi>{html.escape(printable(cut))}</bdi>"


def sparkline(x: Sequence[float], y: Sequence[float], *, log: bool = False) -> Svg:
    """A curve in the colour of the text around it, with gaps where it is not finite.

    Args:
        x: ascending.
        y: at these.
        log: whether to draw logarithms, without what is not positive.
    """
    heights = [math.log10(b) if log and b > 0 else math.nan if log else b for b in y]
    points = _extremes([*zip(x, heights, strict=True)])
    known = [height for _, height in points if math.isfinite(height)]
    if not known:
        return Svg()
    spans = [(points[0][0], points[-1][0]), (min(known), max(known))]
    path, pen = "", "M"
    for point in points:
        if math.isfinite(point[1]):
            across, up = (_part_of(*each) for each in zip(point, spans, strict=True))
            left, top = EDGE + across * (WIDTH - 2 * EDGE), HEIGHT - EDGE - up * (HEIGHT - 2 * EDGE)
            path += f"{pen}{left:.1f} {top:.1f}" + ("h0" if pen == "M" else "")  # a dot, if alone
        pen = "L" if math.isfinite(point[1]) else "M"
    return Svg(
        f'<svg width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
        f'<path d="{path}" fill="none" stroke="currentColor" stroke-width="1.5" '
        'stroke-linecap="round"/></svg>'
    )


def _extremes(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The least and the largest of each of some parts of a curve, and where it has a gap."""
    size = -(-len(points) // BUCKETS)
    kept = []
    for start in range(0, len(points), size or 1):
        part = points[start : start + size]
        finite = [point for point in part if math.isfinite(point[1])]
        ends = {end(finite, key=lambda point: point[1]) for end in (min, max) if finite}
        gap = [point for point in part if not math.isfinite(point[1])]
        kept += sorted({*ends, *gap[:1]}, key=lambda point: point[0])
    return kept


def _part_of(value: float, span: tuple[float, float]) -> float:
    """The place of a value in a span, from 0 at its start to 1; .5 if the span is rounding."""
    value, low, high = value / 2, span[0] / 2, span[1] / 2  # of which no difference is infinite
    wide = high - low > ROUNDING * max(abs(low), abs(high))
    return (value - low) / (high - low) if wide else 0.5
