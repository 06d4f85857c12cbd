"""A verdict on a run as a sentence, and how it shows the values of a gauge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Literal

from lossgeom.messages.reprs import in_table
from lossgeom.stability.edge_series import Points

Kind = Literal[
    "below",
    "approaching",
    "at the edge",
    "above and growing",
    "oscillating below the nominal edge",
    "diverged",
    "not stated",
]

FEW = 3  # values, below which nothing is said
ENOUGH = 5  # of which one may be left out


@dataclass(frozen=True)
class Verdict:
    """Where a run is relative to the edge of stability; ``str`` says it in a sentence.

    Attributes:
        kind: one of seven, see :func:`edge_verdict`.
        reason: the numbers that it rests on, or why nothing is stated.
        since: the step from which on it is so, where it was otherwise before.
        low, high: the range of the values that it rests on, in parts of the edge, without the
            tenth at each end (one at least, of five or more); NaN without values.
        quantity: what these are of; ``None`` without values.

    >>> print(Verdict("at the edge", "sharpness .98 to 1.06 of 2/lr", since=412))
    at the edge since step 412: sharpness .98 to 1.06 of 2/lr
    """

    kind: Kind
    reason: str
    since: int | None = None
    low: float = math.nan
    high: float = math.nan
    quantity: str | None = None

    _repr_html_ = in_table

    def __str__(self) -> str:
        since = "" if self.since is None else f" since step {self.since}"
        return f"{self.kind}{since}: {self.reason}"


@dataclass(frozen=True)
class Gauge:
    """Values in parts of their edge.

    Attributes:
        name: of the gauge.
        edge: in a formula; nothing for 1.
        points: by step; :meth:`smoothed` makes them those that decide.
        measured: the values as they were measured.
        ending: of a sentence about them.
    """

    name: str
    edge: str
    points: Points
    measured: Sequence[float]
    ending: str = ""

    @classmethod
    def of(cls, name: str, edge: str, points: Points, ending: str = "") -> Gauge:
        """Values of a gauge as they were measured."""
        return cls(name, edge, points, [value for _, value in points], ending)

    @property
    def values(self) -> list[float]:
        return [value for _, value in self.points]

    @property
    def range(self) -> tuple[float, float]:
        """What was measured, but for a tenth at each end, which is one of five at least."""
        values = sorted(self.measured)
        cut = max(len(values) // 10, 1) if len(values) >= ENOUGH else 0
        return values[cut], values[-1 - cut]

    @property
    def told(self) -> str:
        """The range in words."""
        low, high = map(short, self.range)
        said = low if low == high else f"{low} to {high}"
        return f"{said} of {self.edge}" if self.edge else said

    def __str__(self) -> str:
        return f"{self.name} {self.told}"

    def part(self, start: int, end: int | None = None) -> Gauge:
        return replace(self, points=self.points[start:end], measured=self.measured[start:end])

    def smoothed(self) -> Gauge:
        """Each value replaced by the median of itself and its neighbours; the same at both ends."""
        values, last = self.values, len(self.points) - FEW
        starts = [min(max(i - 1, 0), max(last, 0)) for i in range(len(values))]
        middle = [median(values[start : start + FEW]) for start in starts]
        steps = [step for step, _ in self.points]
        return replace(self, points=list(zip(steps, middle, strict=True)))


def says(gauge: Gauge, kind: Kind, more: str = "", since: int | None = None) -> Verdict:
    """Make a verdict that rests on the values of a gauge."""
    return Verdict(kind, f"{gauge}{gauge.ending}{more}", since, *gauge.range, gauge.name)


def short(value: float) -> str:
    """Two decimals, or one digit of what is smaller and three of what is larger.

    >>> short(0.984), short(1.06), short(0.0042), short(0.0), short(1234.5)
    ('.98', '1.06', '.004', '0', '1.23e+03')
    """
    size = abs(value)
    text = f"{value:.2f}" if 0.095 <= size < 100 else f"{value:.{3 if size >= 100 else 1}g}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text
