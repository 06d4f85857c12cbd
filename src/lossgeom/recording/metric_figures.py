"""Figures of metrics that a record asks its report for, which are told once for a study."""

from __future__ import annotations

from dataclasses import dataclass


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
class Scatter:
    """The last values of metrics, a point for each run.

    Attributes:
        colour: the setting that has a colour for each value.
        size: the setting that has a size for each value.
        caption: what else a reader should know.
        panels: from left to right.
    """

    colour: str
    size: str
    caption: str
    panels: tuple[Pair, ...]
