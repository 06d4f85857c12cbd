"""The edge of stability along a recorded run, in the units of each gauge."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lossgeom.recording.record import Record
from lossgeom.recording.record_format import Watched
from lossgeom.recording.watched import watched_of
from lossgeom.stability.edge_series import PLAIN_SGD

CONSTANT = {"edge_ratio": 1.0, "realised_edge": 1.0, "critical_step": 1.0, "update_curvature": 2.0}
ALONG_STEPS = ("critical_sharpness", "momentum_batch_sharpness")  # with the edge 2/lr
ALONG_GRADIENTS = ("batch_sharpness", "directional_sharpness")  # the same without momentum
LOGARITHMIC = ("critical_step",)  # gauges that are drawn so


@dataclass(frozen=True)
class Edge:
    """The edge of a gauge.

    Attributes:
        formula: what it is.
        of: what it is at the step of a row; NaN where that is not known, infinite where nothing
            moves.
    """

    formula: str
    of: Callable[[Mapping[str, Any]], float]


@dataclass(frozen=True)
class EdgeLine:
    """The edge of each step at which a gauge was measured.

    Attributes:
        steps: in order.
        values: NaN where the edge is not known, or infinite.
        formula: what it is.
    """

    steps: tuple[int, ...]
    values: tuple[float, ...]
    formula: str


def edge_of(metric: str, watched: Watched) -> Edge | None:
    """What rows of a metric are compared with; None where there is no such thing.

    It is the threshold that the row of a sharpness has, where it is of that matrix; 2/lr of the
    row for curvatures along steps, or along gradients without momentum; and a constant for gauges
    of single steps.
    """
    plain, of_hessian = watched.formula in (None, PLAIN_SGD), watched.matrix in (None, "Hessian")
    if metric in CONSTANT:
        return Edge("edge", lambda _: CONSTANT[metric])
    if metric in ALONG_STEPS or (metric in ALONG_GRADIENTS and plain):
        return Edge(PLAIN_SGD, _of_lr)
    if metric == "effective_sharpness" or (metric == "sharpness" and of_hessian):
        return Edge(watched.formula or "threshold", _threshold)
    return None


def edge_line(record: Record, metric: str) -> EdgeLine | None:
    """The edge beside the rows of a metric, each of its own step; None where there is none.

    Where rows have no threshold, the manifest may have a constant.
    """
    edge = edge_of(metric, watched_of(record) or Watched(()))
    if edge is None:
        return None
    rows = {row["step"]: row for row in record.rows() if row.get("metric") == metric}
    steps = tuple(sorted(rows))
    edges = [edge.of(rows[step]) for step in steps]
    values = tuple(value if math.isfinite(value) else math.nan for value in edges)
    return None if all(map(math.isnan, values)) else EdgeLine(steps, values, edge.formula)


def _threshold(row: Mapping[str, Any]) -> float:
    value = row.get("threshold")
    return math.nan if value is None else float(value)


def _of_lr(row: Mapping[str, Any]) -> float:
    lr = row.get("lr")
    if lr is None:
        return math.nan
    return 2 / lr if lr else math.inf
