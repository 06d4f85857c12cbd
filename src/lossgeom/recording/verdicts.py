"""Where a recorded run is relative to the edge of stability."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from lossgeom.metrics import GradientCosine
from lossgeom.recording.budget import BUDGET
from lossgeom.recording.edge_lines import Edge, edge_of
from lossgeom.recording.measuring import FAILED
from lossgeom.recording.record import Record
from lossgeom.recording.record_format import Watched
from lossgeom.recording.watched import watched_of
from lossgeom.stability import EdgeSeries, Verdict, edge_verdict
from lossgeom.stability.edge_series import PLAIN_SGD

Row = Mapping[str, Any]
Rows = dict[str, dict[int, Row]]  # by metric and step
SHARPNESS = "sharpness"
PREFERRED = ("edge_ratio", "effective_sharpness")  # to sharpness
GAUGES = (
    "edge_ratio",
    "effective_sharpness",
    "realised_edge",
    "update_curvature",
    "critical_step",
    "batch_sharpness",
)


def verdict_of(record: Record | str | Path, *, full_batch: bool | None = None) -> Verdict:
    """Say where a recorded run is relative to the edge of stability, from its rows.

    See :func:`lossgeom.edge_verdict` for the rule and for what is not stated. The rows are those of
    ``edge_ratio``, or else of ``effective_sharpness`` or ``sharpness`` over the threshold beside
    them, or over the constant one that a :class:`lossgeom.Tracker` was given; of ``loss``,
    ``realised_edge``, ``update_curvature``, ``critical_step``, and of ``batch_sharpness`` for SGD
    without momentum. Nothing is measured, so that it costs reading the rows.

    Args:
        record: of a run that is over, or is still going on; or its folder.
        full_batch: whether its steps were on all of the data that was measured on; left out, what
            the record says, which :func:`lossgeom.watch` tells from the gradients.

    Raises:
        RecordError: if the rows are damaged.

    >>> import tempfile, lossgeom as lg
    >>> record = lg.Record.create(tempfile.mkdtemp())
    >>> for step, value in enumerate([5.0, 7.8, 8.2, 8.1, 8.3, 8.0]):
    ...     record.append({"step": step, "metric": "sharpness", "value": value, "threshold": 8.0})
    >>> print(lg.verdict_of(record, full_batch=True))
    at the edge since step 1: sharpness 1.00 to 1.02 of its threshold
    """
    if not isinstance(record, Record):
        record = Record.open(record)
    rows = record.rows()
    found = edge_verdict(series_of(record, rows, full_batch))
    nothing = _nothing_measured(rows, record.is_over)
    if nothing is not None and found.kind != "diverged":
        found = Verdict("not stated", nothing)
    if record.status == "diverged" and found.kind != "diverged":
        return Verdict("diverged", "the record says so")
    return found


def is_about_the_edge(record: Record) -> bool:
    """Whether a run has measured anything that a verdict may rest on."""
    metrics = {metric for _, metric in record.measured}
    known = SHARPNESS in record.for_report.thresholds or watched_of(record) is not None
    return record.manifest["kind"] == "run" and bool(metrics.intersection(GAUGES) or known)


def series_of(record: Record, written: Sequence[Row], full_batch: bool | None = None) -> EdgeSeries:
    """What a record holds of how far its steps were from their edge of stability."""
    watched = watched_of(record) or Watched(())
    rows = _by_metric(written)
    steps = sorted(set().union(*rows.values()))

    def values(metric: str, of: Callable[[Row], float | None] = _value) -> list[float | None]:
        found = rows.get(metric, {})
        return [of(found[step]) if step in found else None for step in steps]

    told = record.for_report
    metric, edge = _compared(rows, watched, told.thresholds.get(SHARPNESS))
    along = edge_of("batch_sharpness", watched) if watched.formula == PLAIN_SGD else None
    own = rows.get(metric, {})
    early = _early(own, watched)
    still = {step for step, row in own.items() if _is_still(row)}
    ratios = values(metric, _over(edge)) if edge else []
    out = early | still
    preconditioned = metric == "effective_sharpness" or watched.matrix not in (None, "Hessian")
    return EdgeSeries(
        steps=steps,
        ratios=[None if t in out else r for t, r in zip(steps, ratios, strict=False)],
        losses=values("loss", lambda row: None if row.get("status") == FAILED else _value(row)),
        realised_edges=values("realised_edge"),
        update_curvatures=values("update_curvature"),
        critical_steps=values("critical_step"),
        batch_ratios=values("batch_sharpness", _over(along)) if along else (),
        full_batch=watched.full_batch if full_batch is None else full_batch,
        status=watched.status or "ok",
        maximized=watched.maximized,
        quantity="effective sharpness" if preconditioned else "sharpness",
        formula=watched.formula or told.threshold_formulas.get(SHARPNESS, "its threshold"),
        skipped=sum(row.get("skipped", 0) for row in written if row.get("because") == BUDGET),
        optimizer=_named(watched),
        gradient_cosine=_middle(values(GradientCosine.name)),
        early=len(early),
        still=len(still - early),
    )


def _named(watched: Watched) -> str:
    """The optimisers, or those without a known threshold."""
    names = " and ".join(dict.fromkeys(watched.unknown or watched.optimizers)) or "this optimiser"
    why = watched.formula if watched.status == "unknown" and not watched.unknown else None
    return f"{names} ({why})" if why else names


def _early(rows: Mapping[int, Row], watched: Watched) -> set[int]:
    """The steps whose threshold was nominal, of an optimiser of which it is not any more."""
    if watched.status != "ok":
        return set()
    return {step for step, row in rows.items() if row.get("nominal")}


def _is_still(row: Row) -> bool:
    """Whether the learning rate was 0, so that the threshold was infinite."""
    return row.get("lr") == 0 or row.get("threshold") == math.inf


def _middle(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return median(known) if known else math.nan


def _nothing_measured(rows: Sequence[Row], is_over: bool) -> str | None:
    """Why no value tells of the edge, where there is none."""
    told = [row for row in rows if row.get("metric") in (*GAUGES, SHARPNESS)]
    failed = [row for row in told if row.get("status") == FAILED]
    if failed and len(failed) == len(told):
        why = failed[0].get("message", "no message")
        return f"nothing measured that tells of the edge ({len(failed)} failed: {why})"
    if any("metric" in row for row in rows):
        return None
    return "nothing measured" if is_over else "nothing measured yet"


def _by_metric(written: Sequence[Row]) -> Rows:
    rows: Rows = {}
    for row in written:
        if "metric" in row:
            rows.setdefault(row["metric"], {})[row["step"]] = row
    return rows


def _compared(rows: Rows, watched: Watched, constant: float | None) -> tuple[str, Edge | None]:
    """The metric to compare with the threshold, and the edge that it is compared with."""
    metric = next((name for name in PREFERRED if name in rows), SHARPNESS)
    own = rows.get(metric, {}).values()
    if metric == SHARPNESS and all(row.get("threshold") is None for row in own):
        return metric, Edge("threshold", lambda _: constant or math.nan)
    return metric, edge_of(metric, watched)


def _value(row: Row) -> float:
    return float(row["value"])


def _over(edge: Edge) -> Callable[[Row], float]:
    """How a row compares with its edge: NaN where that is not known, or no value is below it."""

    def ratio(row: Row) -> float:
        at = edge.of(row)
        return _value(row) / at if at > 0 else math.nan

    return ratio
