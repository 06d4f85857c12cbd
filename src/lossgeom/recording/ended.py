"""How runs ended, side by side."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from lossgeom.recording.correlations import Runs
from lossgeom.recording.record import Record


def ended(*studies: Iterable[Record]) -> Runs:
    """The last value of every metric of runs of one or more studies, whose settings are their own.

    A metric that a run has no value of is NaN there. The setting of a run is all that it was
    configured with, but for its seed.
    """
    runs = [(place, record) for place, records in enumerate(studies) for record in records]
    ends = [last_values(record) for _, record in runs]
    return Runs(
        [record.config.get("seed") for _, record in runs],
        [(place, json.dumps({**record.config, "seed": None})) for place, record in runs],
        {
            name: [end.get(name, math.nan) for end in ends]
            for name in dict.fromkeys(n for e in ends for n in e)
        },
    )


def last_values(record: Record) -> dict[str, float]:
    """The last value of every metric."""
    return {metric: values[-1] for metric, values in series_of(record.rows()).items()}


def series_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[float]]:
    """The values of every metric, by step."""
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        if "metric" in row:
            found.setdefault(row["metric"], {})[row["step"]] = row["value"]
    return {metric: [of[step] for step in sorted(of)] for metric, of in found.items()}
