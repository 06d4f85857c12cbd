"""The runs, and what is missing of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lossgeom.record import Record
from lossgeom.report._section import Section
from lossgeom.report._source import Source


def runs(source: Source, figures: Path) -> Section | None:  # noqa: ARG001
    """A row per planned run: how it ended, its rows, and the rows that are not there."""
    if source.measurement is not None:
        return None
    rows = [_row(name, source.records.get(name)) for name in source.planned]
    over = sum(record.is_over for record in source.records.values())
    return Section("Runs", "runs.html", {"runs": rows, "over": over, "planned": len(rows)})


def _row(name: str, record: Record | None) -> dict[str, Any]:
    if record is None:
        return {"name": name, "status": "not started", "rows": 0, "missing": "all", "doubtful": 0}
    rows = record.rows()
    status = record.status if record.is_over else "stopped or still running"
    metrics = {metric for _, metric in record.measured}
    planned = record.manifest.get("planned_steps", [])
    missing = sum((step, metric) not in record.measured for step in planned for metric in metrics)
    doubtful = sum(row.get("status", "ok") != "ok" for row in rows)
    return {
        "name": name,
        "status": status,
        "rows": len(rows),
        "missing": missing if metrics else "all",
        "doubtful": doubtful,
    }
