"""Metrics along training, with what their values are compared with."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lossgeom.messages.wording import one_of
from lossgeom.plot.curves import draw_metric
from lossgeom.plot.runs import Groups, Runs, groups_of, runs_of
from lossgeom.plot.style import drawing, literal
from lossgeom.plot.thresholds import lines_of
from lossgeom.recording.edge_lines import LOGARITHMIC
from lossgeom.recording.metric_figures import Panel
from lossgeom.recording.record import Record
from lossgeom.recording.verdicts import verdict_of
from lossgeom.stability import Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (6.4, 3.4)  # inches
WIDE = 1e3  # times its least value, from which on a metric is drawn with logarithms
REACH = 2.0  # times as high as its values a panel may be, to show their threshold
LINE, LINES = 82, 4  # characters of a title, and lines of a remark in it
GAUGES = ("sharpness", "effective_sharpness", "edge_ratio", "batch_sharpness")  # the best first
OF_STEPS = ("realised_edge", "update_curvature", "critical_step")


def trajectory(records: Runs, metric: str, *, ax: Axes | None = None) -> Figure:
    """Draw a metric over the steps of runs, beside the threshold of each step.

    Bars are standard errors, or residuals of eigenvalues. A cross at the top is a step at which the
    metric failed, or was NaN or infinite; a tick at the bottom, one at which it was planned and is
    not there. Where values are positive and span three decades, and have no threshold, the axis is
    logarithmic. Else, those that are few and far away from others are out of sight, and counted.

    Several runs are named by the settings that they differ in, or else by their folders.

    Args:
        records: or folders, of runs or of studies, whose runs are meant; one, or several.
        metric: its name in the rows, such as ``"sharpness"``.
        ax: matplotlib's axes to draw on, which keep their style; a new figure by default.

    Returns:
        The figure, with steps on the x axis and the metric, with its unit, on the y axis.

    Raises:
        ImportError: without matplotlib, which the extra ``plot`` brings.
        RecordError: if a folder holds no record, or a damaged one.
        ValueError: if no run has the metric.

    >>> import tempfile, lossgeom as lg
    >>> record = lg.Record.create(tempfile.mkdtemp())
    >>> for step, value in enumerate([5.0, 7.8, 8.2]):
    ...     record.append({"step": step, "metric": "sharpness", "value": value, "threshold": 8.0})
    >>> figure = lg.plot.trajectory(record, "sharpness")
    >>> [[float(y) for y in line.get_ydata()] for line in figure.axes[0].lines]
    [[5.0, 7.8, 8.2], [8.0, 8.0]]
    """
    return _figure(runs_of(records), metric, {}, ax)


def edge(records: Runs, *, ax: Axes | None = None) -> Figure:
    """Draw how far the steps of runs are from the edge of stability, and say the verdict.

    It is what the verdict of :func:`lossgeom.verdict_of` rests on, or else the first that all runs
    have of the sharpness, the effective sharpness, the ratio of either to its threshold, batch
    sharpness, and what single steps tell of the edge; beside the threshold of each step.

    Args:
        records: as for :func:`trajectory`.
        ax: the same.

    Returns:
        The figure, as that of :func:`trajectory`, with the verdict above, or beside each run's
        name in the legend.

    Raises:
        ImportError: without matplotlib, which the extra ``plot`` brings.
        RecordError: if a folder holds no record, or a damaged one.
        ValueError: if the runs have no such quantity in common.

    >>> import tempfile, lossgeom as lg
    >>> record = lg.Record.create(tempfile.mkdtemp())
    >>> for step, value in enumerate([5.0, 7.8, 8.2, 8.1, 8.3, 8.0]):
    ...     record.append({"step": step, "metric": "sharpness", "value": value, "threshold": 8.0})
    >>> print(lg.plot.edge(record).axes[0].get_title())
    not stated: ...
    """
    runs = runs_of(records)
    verdicts = {name: verdict_of(run) for name, run in runs.items()}
    measured = {name: _measured(run) for name, run in runs.items()}
    rests_on = (each.quantity.replace(" ", "_") for each in verdicts.values() if each.quantity)
    known = [
        metric
        for metric in dict.fromkeys((*rests_on, *GAUGES, *OF_STEPS))
        if all(
            metric in found and lines_of(runs, [name], Panel(metric, metric))
            for name, found in measured.items()
        )
    ]
    if not known:
        raise ValueError(
            f"expected runs that have measured {one_of((*GAUGES, *OF_STEPS))}, beside an edge that "
            f"is known, and all the same one, got {_all_measured(runs)}; "
            "trajectory draws any metric"
        )
    return _figure(runs, known[0], verdicts, ax)


def _figure(
    runs: dict[str, Record], metric: str, verdicts: Mapping[str, Verdict], ax: Any
) -> Figure:
    """A figure of one panel, with remarks above it; verdicts are remarks on single runs."""
    if not any(metric in _measured(run) for run in runs.values()):
        raise ValueError(
            f"expected a metric that was measured, got {metric!r}; the runs have "
            f"{_all_measured(runs)}"
        )
    title, groups = groups_of(runs, None)
    kinds = {name: verdicts[run].kind for name, (run,) in groups.items()} if verdicts else {}
    with drawing(ax, *SIZE, title) as axis:
        _, off = draw_metric([axis], _panel(metric, runs), groups, {"": list(runs)}, runs, REACH)
        axis.set_xlabel("step")
        remarks = [*([off] if off else []), *(f"edge: {each}" for each in cautions_of(runs))]
        if len(runs) == 1:
            remarks = [*map(str, verdicts.values()), *remarks]
        if remarks:
            axis.set_title("\n".join(map(_folded, remarks)))
        for line in axis.lines:
            if line.get_label() in kinds:
                line.set_label(f"{line.get_label()}: {kinds[line.get_label()]}")
    figure: Figure = axis.figure
    return figure


def _folded(remark: str) -> str:
    """A remark as wide as a figure is, with its end left out where it would be half as high."""
    return textwrap.fill(
        literal(remark), LINE, max_lines=LINES, placeholder=" ...", break_on_hyphens=False
    )


def _panel(metric: str, runs: dict[str, Record]) -> Panel:
    """How to draw a metric: with logarithms where it is positive, wide, and has no edge."""
    panel = Panel(metric, metric.replace("_", " "), log=metric in LOGARITHMIC)
    values = [value for run in runs.values() for value in run.series(metric)[1]]
    known = [value for value in values if math.isfinite(value)]
    wide = bool(known) and max(known) > WIDE * min(known) > 0
    return replace(panel, log=True) if wide and not lines_of(runs, [*runs], panel) else panel


def _measured(record: Record) -> set[str]:
    return {metric for _, metric in record.measured}


def _all_measured(runs: Mapping[str, Record]) -> str:
    return ", ".join(sorted(set().union(*map(_measured, runs.values())))) or "nothing"


def cautions_of(records: Mapping[str, Record]) -> list[str]:
    """Warnings about thresholds, each with the names of its runs unless it is for all."""
    found: Groups = {}
    for name, record in records.items():
        caution = record.for_report.thresholds_caution
        if caution is not None:
            found.setdefault(caution, []).append(name)
    return [
        said if len(names) == len(records) else f"{', '.join(names)} {said}"
        for said, names in found.items()
    ]
