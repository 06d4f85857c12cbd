"""The runs, with how they ended and how many values are missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lossgeom.recording.folder import RUNS_TABLE
from lossgeom.recording.record import Record
from lossgeom.report._section import Section
from lossgeom.report._source import ALONE, Source


def runs(source: Source, figures: Path) -> Section | None:  # noqa: ARG001
    """A row per planned run: how it ended, its rows, and how many are missing.

    Before them, where a table of their numbers is, and the runs that are left out of the claims,
    with the reason in their manifests.
    """
    if source.manifest["kind"] in ALONE:
        return None
    rows = [_row(name, source.records.get(name)) for name in source.planned]
    over = sum(record.is_over for record in source.records.values())
    reasons = {name: record.for_report.left_out for name, record in source.records.items()}
    left_out = {name: reason for name, reason in reasons.items() if reason is not None}
    table = RUNS_TABLE if (source.folder / RUNS_TABLE).exists() else None
    values = {
        "runs": rows, "over": over, "planned": len(rows), "left_out": left_out, "table": table
    }  # fmt: skip
    return Section("Runs", "runs.html", values)


def _row(name: str, record: Record | None) -> dict[str, Any]:
    if record is None:
        return {"name": name, "status": "not started", "rows": 0, "missing": "all", "doubtful": 0}
    rows, told = record.rows(), record.for_report
    metrics, at_end = {metric for _, metric in record.measured}, set(told.planned_at_end)
    planned = {(step, metric) for step in told.planned_steps for metric in metrics - at_end}
    missing = len(planned - record.measured) + len(at_end - metrics)
    return {
        "name": name,
        "status": record.status if record.is_over else "stopped or still running",
        "rows": len(rows),
        "missing": missing if metrics else "all",
        "doubtful": sum(row.get("status", "ok") != "ok" for row in rows),
    }
