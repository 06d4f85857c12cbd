"""Panels for runs of which no manifest says what to draw."""

from __future__ import annotations

import math
from collections.abc import Iterable

from lossgeom.recording.edge_lines import LOGARITHMIC
from lossgeom.recording.metric_figures import Panel
from lossgeom.recording.record import Record

ORDER = (  # of importance; others stand between these and the norms
    "loss",
    "edge_ratio",
    "effective_sharpness",
    "sharpness",
    "batch_sharpness",
    "realised_edge",
    "update_curvature",
    "critical_step",
)
LAST = ("gradient_norm", "update_norm")
OF_MEASURING = ("_sampling_error", "gradient_cosine")  # how well it is measured, and on what


def panels_of(records: Iterable[Record]) -> tuple[tuple[Panel, ...], list[str]]:
    """A panel for each metric that has finite values along training, and why others have none."""
    rows = [row for record in records for row in record.rows() if "metric" in row]
    metrics = sorted(dict.fromkeys(row["metric"] for row in rows), key=_place)
    finite = {row["metric"] for row in rows if math.isfinite(float(row["value"]))}
    why = {row["metric"]: row.get("message") for row in reversed(rows)}
    about_loss = [metric for metric in metrics if not metric.endswith(OF_MEASURING)] or metrics
    shown = [metric for metric in about_loss if metric in finite] or about_loss
    steps = {metric: {row["step"] for row in rows if row["metric"] == metric} for metric in shown}
    along = [metric for metric in shown if len(steps[metric]) > 1] or shown
    left_out = [
        f"{metric.replace('_', ' ')} is measured at step {min(steps[metric])} alone: "
        + ", ".join(f"{float(row['value']):.3g}" for row in rows if row["metric"] == metric)
        for metric in shown
        if metric not in along
    ]
    left_out += [
        f"{metric.replace('_', ' ')} has no finite value{f': {why[metric]}' if why[metric] else ''}"
        for metric in about_loss
        if metric not in shown
    ]
    panels = tuple(
        Panel(metric, metric.replace("_", " "), log=metric in LOGARITHMIC) for metric in along
    )
    return panels, left_out


def _place(metric: str) -> int:
    """The place of a metric among the panels; in another mode, that of the same metric."""
    name = metric.partition(" (")[0]
    if name in LAST:
        return len(ORDER) + 1 + LAST.index(name)
    return ORDER.index(name) if name in ORDER else len(ORDER)
