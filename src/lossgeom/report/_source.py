"""What a report is made from: the records of one folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lossgeom.record import Record, RecordError


@dataclass(frozen=True)
class Source:
    """A study's folder with its runs and claims, or the folder of a single run.

    Attributes:
        folder: where it is.
        manifest: of the study, or of the run.
        records: of the runs that have been started, by name.
        planned: names of all runs, whether started or not.
        claims: what ``claims.json`` holds; none for a study that is not complete.
    """

    folder: Path
    manifest: dict[str, Any]
    records: dict[str, Record]
    planned: tuple[str, ...]
    claims: tuple[dict[str, Any], ...]

    @property
    def title(self) -> str:
        """Over its part of the page."""
        return str(self.manifest.get("title", self.folder.name))

    @property
    def complete(self) -> bool:
        """Whether every planned run is over."""
        over = [record.status in ("finished", "diverged") for record in self.records.values()]
        return len(over) == len(self.planned) and all(over)


def read_source(folder: Path) -> Source:
    """Read a folder.

    Raises:
        RecordError: if it holds no record.
    """
    top = Record.open(folder)
    if top.manifest["kind"] != "study":
        name = folder.resolve().name
        return Source(folder, top.manifest, {name: top}, (name,), ())
    planned = tuple(top.manifest.get("planned_runs", ()))
    records = {}
    for name in planned:
        path = folder / "runs" / name
        if (path / "manifest.json").exists():
            records[name] = Record.open(path)
    claims_path = folder / "claims.json"
    try:
        claims = json.loads(claims_path.read_text()) if claims_path.exists() else []
    except ValueError as error:
        raise RecordError(f"{claims_path} is damaged: {error}") from error
    return Source(folder, top.manifest, records, planned, tuple(claims))
