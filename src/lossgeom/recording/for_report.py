"""What a record tells its report: what to draw, what was planned, and what is left out.

Each class is written into a manifest, or beside arrays, with its fields as keys, and is compared
with them when it is read. See :meth:`lossgeom.Record.describe` and
:meth:`lossgeom.Record.save_drawing`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar

from lossgeom.recording.forms import ArrayName
from lossgeom.recording.metric_figures import Scatter, Sweep, Trajectories

# Figures of arrays, which are saved beside them


@dataclass(frozen=True)
class Boundary:
    """Lines (n,) over ``x`` (n,); runs at ``points_x``, ``points_y`` (k,), that ``left`` if not 0.

    Attributes:
        lines: what to call each line.
        stays: what to call runs that did not leave; ``leaves`` is the same of the others.
    """

    title: str
    x_label: str
    y_label: str
    lines: Mapping[str, str]
    stays: str
    leaves: str

    key: ClassVar[str] = "boundaries"

    @property
    def arrays(self) -> tuple[str, ...]:
        return ("x", "points_x", "points_y", "left", *self.lines)


@dataclass(frozen=True)
class Curves:
    """Curves of single runs: arrays ``x`` (n,) and ``y`` (n, k), NaN after the end of a curve.

    Attributes:
        line: a level to draw across.
        line_label: what that level is.
    """

    title: str
    x_label: str
    y_label: str
    line: float
    line_label: str

    key: ClassVar[str] = "curves"

    @property
    def arrays(self) -> tuple[str, ...]:
        return ("x", "y")


@dataclass(frozen=True)
class HeatMap:
    """A number over two settings: arrays ``x`` (n,), ``y`` (m,), and (m, n) for values and marks.

    Attributes:
        values: the array that is drawn.
        values_label: what it is.
        marks: a label for each array of shares; a cell is marked where a share is half or more.
    """

    title: str
    x_label: str
    y_label: str
    values: str
    values_label: str
    marks: Mapping[str, str]

    key: ClassVar[str] = "heat_maps"

    @property
    def arrays(self) -> tuple[str, ...]:
        return ("x", "y", self.values, *self.marks)


@dataclass(frozen=True)
class PhasePlane:
    """A motion in a plane, on a grid of ``x`` (n,) and ``y`` (m,), and paths in it.

    Of shape (m, n) are the motion, ``dx`` and ``dy``; ``still_x`` and ``still_y``, which are zero
    where a coordinate stands still; and ``exists``, which is zero where there is no model. Each
    path ``path_0``, ``path_1``, ... is (steps, 2).

    Attributes:
        edge: a level of y to draw across, and ``limit`` another one.
        rest_label: what x = 0 is.
        still_x: what the line is on which x stands still; ``still_y`` is the same of y.
    """

    title: str
    x_label: str
    y_label: str
    edge: float
    edge_label: str
    limit: float
    limit_label: str
    rest_label: str
    still_x: str
    still_y: str

    key: ClassVar[str] = "phase_planes"

    @property
    def arrays(self) -> tuple[str, ...]:
        return ("x", "y", "dx", "dy", "still_x", "still_y", "exists")


@dataclass(frozen=True)
class Prediction:
    """Numbers ``y`` (n, k) at ``x`` (n,), and the line ``line_x``, ``line_y`` that predicts them.

    Attributes:
        line_label: what the line is.
        log_x: whether the axis of x is logarithmic.
    """

    title: str
    x_label: str
    y_label: str
    line_label: str
    log_x: bool

    key: ClassVar[str] = "predictions"

    @property
    def arrays(self) -> tuple[str, ...]:
        return ("x", "y", "line_x", "line_y")


@dataclass(frozen=True)
class Spectra:
    """The spectra of some matrices at one point.

    For each matrix m there are its eigenvalues ``m_values``, descending. There may be its density
    as ``m_grid``, ``m_density``, ``m_stderr``, and ``m_one_eigenvalue``, the height of a single
    eigenvalue in it.

    Attributes:
        matrices: what to call each matrix.
        column: the column of panels that this belongs in.
        row: what the point is.
        marked: how many of the largest eigenvalues to mark.
        marked_as: what that number is.
    """

    matrices: Mapping[str, str]
    column: str
    row: str
    marked: int
    marked_as: str

    key: ClassVar[str] = "spectra"

    @property
    def arrays(self) -> tuple[str, ...]:
        return tuple(f"{matrix}_values" for matrix in self.matrices)


Drawing = Boundary | Curves | HeatMap | PhasePlane | Prediction | Spectra


# The manifest


@dataclass(frozen=True)
class ForReport:
    """What a manifest tells the report; a field at its default is not told.

    Attributes:
        title: over the page.
        source: the paper and the part of it.
        summary: the result in a sentence or two.
        glossary: what words and symbols mean.
        command: what repeats the run on a command line.
        notes: how measurements differ from how the model runs.
        figure: metrics to draw along training; by default, every metric.
        scatter: metrics to draw at the end of training.
        sweep: metrics to draw over settings.
        boundaries, curves, heat_maps, phase_planes, predictions, spectra: names of arrays to draw,
            which may not be there yet. :meth:`lossgeom.Record.save_drawing` adds to them.
        planned_runs: names of all runs of a study.
        planned_steps: at which every metric is to be measured.
        planned_at_end: names of metrics to be measured at the end only.
        left_out: why a run is left out of the claims.
        idle_settings: names of settings of which no use is made.
        thresholds: values to draw beside metrics, by the metric's name.
        threshold_formulas: what these are.
        thresholds_caution: why they may not be compared with what was measured.
    """

    title: str | None = None
    source: str | None = None
    summary: str | None = None
    glossary: str | None = None
    command: str | None = None
    notes: tuple[str, ...] = ()
    figure: Trajectories | None = None
    scatter: Scatter | None = None
    sweep: Sweep | None = None
    boundaries: tuple[ArrayName, ...] = ()
    curves: tuple[ArrayName, ...] = ()
    heat_maps: tuple[ArrayName, ...] = ()
    phase_planes: tuple[ArrayName, ...] = ()
    predictions: tuple[ArrayName, ...] = ()
    spectra: tuple[ArrayName, ...] = ()
    planned_runs: tuple[str, ...] = ()
    planned_steps: tuple[int, ...] = ()
    planned_at_end: tuple[str, ...] = ()
    left_out: str | None = None
    idle_settings: tuple[str, ...] = ()
    thresholds: Mapping[str, float] = field(default_factory=dict)
    threshold_formulas: Mapping[str, str] = field(default_factory=dict)
    thresholds_caution: str | None = None

    @property
    def told(self) -> dict[str, Any]:
        """The fields that are not at their defaults."""
        nothing = ForReport()
        return {
            each.name: asdict(self)[each.name]
            for each in fields(self)
            if getattr(self, each.name) != getattr(nothing, each.name)
        }
