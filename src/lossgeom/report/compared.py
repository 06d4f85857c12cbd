"""Two records side by side: what was asked, and what came out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lossgeom.recording.ended import last_values
from lossgeom.recording.folder import flat
from lossgeom.report._source import Source
from lossgeom.report.sections.claims import number, told
from lossgeom.report.sections.setup import as_text, used

ABSENT = "not there"


@dataclass(frozen=True)
class Side:
    """One of two records: its settings, the last value of each metric, and its claims in words."""

    name: str
    config: Mapping[str, Any]
    ends: Mapping[str, float] = field(default_factory=dict)
    claims: Mapping[str, str] = field(default_factory=dict)


def compared(sources: Sequence[Source]) -> dict[str, Any] | None:
    """Two single runs, two measurements or two folders of one study; None for anything else.

    Returns:
        The names of both; for every setting and claim that differs and for every metric, a name and
        a cell for each of both, for metrics with the ratio of the second to the first; and how many
        claims agree.
    """
    sides = [side for source in sources for side in _sides(source)]
    if len(sides) != 2 or len({_kind(source) for source in sources}) > 1:
        return None
    first, second = sides
    same = first.name == second.name
    return {
        "names": [str(source.folder) for source in sources] if same else [first.name, second.name],
        "settings": _differing(*(_in_words(side.config) for side in sides)),
        "ends": _ends(first.ends, second.ends),
        "claims": _differing(first.claims, second.claims),
        "agree": sum(second.claims.get(key) == said for key, said in first.claims.items()),
    }


def _kind(source: Source) -> str:
    """What may be compared: records of one kind, and folders of one study."""
    kind = str(source.manifest["kind"])
    return f"study {source.manifest['config'].get('study')}" if kind == "study" else kind


def _sides(source: Source) -> list[Side]:
    """A study as a whole, and each of other records by itself."""
    if source.manifest["kind"] == "study":
        config = {
            **used(source.manifest["config"], source.told.idle_settings),
            "seeds": source.manifest.get("seeds"),
        }
        claims = {claim.statement: told(claim) for claim in source.claims}
        return [Side(source.folder.resolve().name, config, claims=claims)]
    return [
        Side(name, record.config, last_values(record)) for name, record in source.records.items()
    ]


def _in_words(config: Mapping[str, Any]) -> dict[str, str]:
    return {name: as_text(value) for name, value in flat(config).items()}


def _differing(first: Mapping[str, str], second: Mapping[str, str]) -> list[tuple[str, list[str]]]:
    pairs = {key: [first.get(key, ABSENT), second.get(key, ABSENT)] for key in {**first, **second}}
    return [(key, cells) for key, cells in pairs.items() if cells[0] != cells[1]]


def _ends(first: Mapping[str, float], second: Mapping[str, float]) -> list[tuple[str, list[str]]]:
    """The last values of all metrics, and how many times the first the second one is."""
    rows = []
    for metric in {**first, **second}:
        values = [side.get(metric, math.nan) for side in (first, second)]
        cells = [number(side[metric]) if metric in side else ABSENT for side in (first, second)]
        rows.append((metric, [*cells, number(values[1] / values[0]) if values[0] else ""]))
    return rows
