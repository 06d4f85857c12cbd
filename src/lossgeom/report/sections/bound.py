"""A bound with the numbers that it was computed from, and all that it rests on."""

from __future__ import annotations

import math
from pathlib import Path

from lossgeom.recording.forms import parse
from lossgeom.recording.record_format import BOUND, Bound
from lossgeom.report._section import Section
from lossgeom.report._source import Source
from lossgeom.report.sections.training import facts_of

STATUSES = {
    "checked": "checked here",
    "declared": "yours to vouch for",
    "unverifiable": "cannot be checked by anybody",
}


def bound(source: Source, figures: Path) -> Section | None:  # noqa: ARG001
    """What is bounded by what, with which probability, from which numbers, and if what holds."""
    if source.manifest["kind"] != BOUND or source.manifest.get("compared") is not None:
        return None
    (record,) = source.records.values()
    found = parse(Bound | None, record.manifest.get("bound"))
    values = {
        "bound": found,
        "computed": found is not None and not math.isnan(found.value),
        "statuses": STATUSES,
        "facts": facts_of(record),
        "notes": [*record.manifest.get("checkpoint_notes", ()), *record.for_report.notes],
    }
    return Section("Bound", "bound.html", values)
