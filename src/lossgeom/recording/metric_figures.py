"""Figures of metrics that a record asks its report for, which are told once for a study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Quantity:
    """A metric, and what to call it on an axis."""

    metric: str
    label: str


@dataclass(frozen=True)
class Panel:
    """A metric along training.

    Attributes:
        metric: its name in the rows.
        label: what to call it on the axis.
        log: whether the axis is logarithmic.
        threshold: what to call the threshold, where the runs have one for this metric.
        lines: metrics to draw in its place, each with a colour for all runs.
    """

    metric: str
    label: str
    log: bool = False
    threshold: str | None = None
    lines: tuple[Quantity, ...] = ()


@dataclass(frozen=True)
class Trajectories:
    """Metrics along training, one panel below the other.

    Attributes:
        columns: the setting that has a column of panels for each value; None for a single column.
        colour: the setting that has a colour for each value; None for a colour for each run.
        panels: from top to bottom; none for no figure. ``step`` says what a step is called.
        log: whether the axis of steps is logarithmic.
    """

    columns: str | None = None
    colour: str | None = None
    panels: tuple[Panel, ...] = ()
    step: str = "step"
    log: bool = False


@dataclass(frozen=True)
class Pair:
    """One quantity over another."""

    x: Quantity
    y: Quantity


@dataclass(frozen=True)
class Comparison:
    """Which of two quantities goes together with a third one, the outcome, more closely.

    Attributes:
        first: one of them.
        second: the other.
        outcome: the third.
        given: what partial correlations are given.
    """

    first: Quantity
    second: Quantity
    outcome: Quantity
    given: Quantity

    @property
    def metrics(self) -> tuple[str, str, str]:
        """The names of the three."""
        return self.first.metric, self.second.metric, self.outcome.metric


@dataclass(frozen=True)
class Scatter:
    """The last values of metrics, a point for each run.

    Attributes:
        panels: from left to right.
        colour: the setting that has a colour for each value.
        size: the setting that has a size for each value.
        caption: what else a reader should know.
        compared: correlations to compare, also over all studies on a page that compare the same.
    """

    panels: tuple[Pair, ...]
    colour: str | None = None
    size: str | None = None
    caption: str = ""
    compared: Comparison | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a metric in a run.

    Attributes:
        metric: its name in the rows.
        label: what to call it on the axis.
        log: whether the axis is logarithmic.
        of: which of the values along the run it is.
    """

    metric: str
    label: str
    log: bool = False
    of: Literal["last", "largest", "smallest", "median"] = "last"


@dataclass(frozen=True)
class Strengths:
    """The axis of a setting that is varied.

    Attributes:
        setting: its name, or that of a metric whose last value it is; text has places in order.
        label: what to call it.
        log: whether the axis is logarithmic; 0 then has a place of its own, before a break.
        where: the values that other settings have in the runs that are drawn; by default, all.
    """

    setting: str
    label: str
    log: bool = False
    where: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Sweep:
    """Metrics over settings: a point for each run, a line through the medians over seeds.

    Attributes:
        columns: from left to right.
        rows: from top to bottom.
        lines: the setting that has a line and a colour for each value.
        caption: what else a reader should know.
    """

    columns: tuple[Strengths, ...]
    rows: tuple[Outcome, ...]
    lines: str | None = None
    caption: str = ""
