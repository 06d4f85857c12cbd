"""Where the runs are relative to the edge of stability."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

from lossgeom.recording.verdicts import is_about_the_edge, verdict_of
from lossgeom.report._section import Section
from lossgeom.report._source import Source

NOT_STATED = {"not stated": "without a verdict"}  # what a run is then
MANY = 8  # runs, whose verdicts are counted before they are told one by one


def verdict(source: Source, figures: Path) -> Section | None:  # noqa: ARG001
    """The verdict on each run that has measured something for one, in a sentence.

    None for a study of whose runs none has a verdict.
    """
    runs = {name: record for name, record in source.records.items() if is_about_the_edge(record)}
    if not runs:
        return None
    said = {name: verdict_of(record) for name, record in runs.items()}
    kinds = {name: NOT_STATED.get(each.kind, each.kind) for name, each in said.items()}
    if source.manifest["kind"] == "study" and set(kinds.values()) <= set(NOT_STATED.values()):
        return None  # its claims say what it found of the edge
    values = {
        "verdicts": {
            name: (kinds[name], str(each).removeprefix(each.kind)) for name, each in said.items()
        },
        "counts": Counter(kinds.values()) if len(said) > MANY else {},
        "ranges": any(
            math.isfinite(each.low) for each in said.values() if each.kind not in NOT_STATED
        ),
    }
    return Section("Edge of stability", "verdict.html", values)
