"""The edge of stability along a recorded run, in the units of each gauge."""

from __future__ import annotations

import math
from collections.abc import Mapping
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


def edge_line(record: Record, metric: str) -> EdgeLine | None:
    """The edge beside the rows of a metric, each of its own step; None where there is none.

    It is the threshold that the row of a sharpness has, where it is of that matrix; 2/lr of the
    row for curvatures along steps, or along gradients without momentum; and a constant for gauges
    of single steps. Where rows have no threshold, the manifest may have a constant.
    """
    rows = {row["step"]: row for row in record.rows() if row.get("metric") == metric}
    watched = watched_of(record) or Watched(())
    steps = tuple(sorted(rows))
    formula = "edge"
    if metric in CONSTANT:
        values = [CONSTANT[metric]] * len(steps)
    elif metric in ALONG_STEPS or (
        metric in ALONG_GRADIENTS and watched.formula in (None, PLAIN_SGD)
    ):
        values, formula = [_over(2.0, rows[step].get("lr")) for step in steps], "2/lr"
    elif metric == "effective_sharpness" or (
        metric == "sharpness" and watched.matrix in (None, "Hessian")
    ):
        values = [_threshold(rows[step]) for step in steps]
        formula = watched.formula or "threshold"
    else:
        return None
    return EdgeLine(steps, tuple(values), formula) if _known(values) else None


def _threshold(row: Mapping[str, Any]) -> float:
    value = row.get("threshold")
    return float(value) if value is not None and math.isfinite(value) else math.nan


def _over(numerator: float, lr: float | None) -> float:
    return numerator / lr if lr else math.nan


def _known(values: list[float]) -> bool:
    return any(not math.isnan(value) for value in values)
