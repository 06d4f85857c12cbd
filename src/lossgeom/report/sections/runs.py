"""The runs, and what is missing of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lossgeom.recording.record import Record
from lossgeom.report._section import Section
from lossgeom.report._source import Source


def runs(source: Source, figures: Path) -> Section | None:  # noqa: ARG001
    """A row per planned run: how it ended, its rows, and the rows that are not there.

    Before them, the runs that are left out of the claims, with the reason in their manifests.
    """
    if source.measurement is not None:
        return None
    rows = [_row(name, source.records.get(name)) for name in source.planned]
    over = sum(record.is_over for record in source.records.values())
    manifests = {name: record.manifest for name, record in source.records.items()}
    left_out = {name: found["left_out"] for name, found in manifests.items() if "left_out" in found}
    values = {"runs": rows, "over": over, "planned": len(rows), "left_out": left_out}
    return Section("Runs", "runs.html", values)


def _row(name: str, record: Record | None) -> dict[str, Any]:
    if record is None:
        return {"name": name, "status": "not started", "rows": 0, "missing": "all", "doubtful": 0}
    rows = record.rows()
    status = record.status if record.is_over else "stopped or still running"
    metrics = {metric for _, metric in record.measured}
    planned = record.manifest.get("planned_steps", [])
    at_end = set(record.manifest.get("planned_at_end", []))
    during = metrics - at_end
    missing = sum((step, metric) not in record.measured for step in planned for metric in during)
    missing += len(at_end - metrics)
    doubtful = sum(row.get("status", "ok") != "ok" for row in rows)
    return {
        "name": name,
        "status": status,
        "rows": len(rows),
        "missing": missing if metrics else "all",
        "doubtful": doubtful,
    }
