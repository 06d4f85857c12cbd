"""The quantities of a measurement, in a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lossgeom.recording.record_format import MATRICES
from lossgeom.report import wording
from lossgeom.report._section import Section
from lossgeom.report._source import Source
from lossgeom.report.summary import summary


def geometry(source: Source, figures: Path) -> Section | None:  # noqa: ARG001
    """A row per quantity: its value, how good it is, and what it took."""
    if source.measurement is None:
        return None
    found = summary(source.measurement)
    groups: dict[str, list[dict[str, Any]]] = {}
    before = None
    for quantity in found["quantities"]:
        row = _row(quantity, shared=quantity["part"] == before)
        groups.setdefault(MATRICES[quantity["matrix"]], []).append(row)
        before = quantity["part"]
    doubtful = any(quantity["status"] == "not_converged" for quantity in found["quantities"])
    values = {
        "setting": wording.setting(found["problem"]),
        "verdict": wording.verdict(found["stability"]) if found["stability"] else None,
        "sgd": wording.of_sgd(found["stability"]),
        "groups": groups,
        "products": f"{found['products']:,}",
        "seconds": f"{found['seconds']:.3g}",
        "notes": wording.notes_of(found),
        "doubt": wording.NOT_CONVERGED if doubtful else None,
        "messages": sorted({q["message"] for q in found["quantities"] if q["message"]}),
    }
    return Section("Geometry", "geometry.html", values)


def _row(quantity: dict[str, Any], shared: bool) -> dict[str, Any]:
    row = {"label": quantity["label"], "good": quantity["status"] == "ok"}
    if quantity["status"] == "missing":
        return {**row, "value": "not measured yet", "error": "", "products": "", "seconds": ""}
    taken = quantity["matvecs"] > 0
    return {
        **row,
        "value": wording.rounded(quantity["value"], quantity["stderr"] or quantity["residual"]),
        "error": wording.error_of(quantity),
        "products": "the same" if shared else f"{quantity['matvecs']:,}" if taken else "",
        "seconds": "" if shared else _seconds(quantity["seconds"]),
    }


def _seconds(seconds: float) -> str:
    return f"{seconds:.2g}" if seconds < 100 else f"{seconds:.0f}"
