"""What a report is made from: the records of one folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lossgeom.recording.folder import CLAIMS_FILE, MANIFEST_FILE, is_record, run_folder
from lossgeom.recording.record import Record
from lossgeom.recording.record_format import CLAIMS, MEASUREMENT, RecordError, read_json


@dataclass(frozen=True)
class Source:
    """A study's folder with its runs and claims, single runs together, or a measurement.

    Attributes:
        folder: where it is.
        manifest: of the study, or of the first run with the settings of all.
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
    def measurement(self) -> Record | None:
        """The record of a measurement, if this is one."""
        return next(iter(self.records.values())) if self.manifest["kind"] == MEASUREMENT else None

    @property
    def complete(self) -> bool:
        """Whether every planned run is over."""
        over = [record.is_over for record in self.records.values()]
        return len(over) == len(self.planned) and all(over)


def read_sources(folders: Sequence[Path]) -> list[Source]:
    """Read folders: each study and each measurement by itself, and all single runs together.

    Raises:
        RecordError: if a folder holds no record, or a damaged one.
    """
    found = {folder: Record.open(folder) for folder in folders}
    studies = [folder for folder, top in found.items() if top.manifest["kind"] == "study"]
    measured = {f: top for f, top in found.items() if top.manifest["kind"] == MEASUREMENT}
    runs = {f: top for f, top in found.items() if f not in studies and f not in measured}
    sources = [_study(folder, found[folder]) for folder in studies]
    sources += [_measurement(folder, record) for folder, record in measured.items()]
    sources += [_single_runs(runs)] if runs else []
    for source in sources:
        _check_settings(source)
    return sources


def _measurement(folder: Path, record: Record) -> Source:
    name = folder.resolve().name
    return Source(folder, record.manifest, {name: record}, (name,), ())


def _single_runs(runs: dict[Path, Record]) -> Source:
    names = [folder.resolve().name for folder in runs]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in runs]
    records = dict(zip(names, runs.values(), strict=True))
    manifests = [record.manifest for record in records.values()]
    together = {**manifests[0], "title": ", ".join(names), "config": _together(records)}
    notes = {name: record.manifest.get("notes", []) for name, record in records.items()}
    if any(said != notes[names[0]] for said in notes.values()):
        together["notes"] = {name: said for name, said in notes.items() if said}
    return Source(next(iter(runs)), together, records, tuple(names), ())


def _together(records: dict[str, Record]) -> dict[str, Any]:
    """The settings of several runs: each value once where they agree, by run where they differ."""
    configs = {name: record.config for name, record in records.items()}
    keys = {key: None for config in configs.values() for key in config}
    together = {}
    for key in keys:
        values = {name: config.get(key) for name, config in configs.items()}
        same = all(value == next(iter(values.values())) for value in values.values())
        together[key] = next(iter(values.values())) if same else values
    return together


def _study(folder: Path, study: Record) -> Source:
    manifest = study.manifest
    planned = tuple(manifest.get("planned_runs", ()))
    records = {}
    for name in planned:
        path = run_folder(folder, name)
        if is_record(path):
            records[name] = Record.open(path)
    study.check(CLAIMS_FILE)
    source = Source(folder, manifest, records, planned, _claims(folder / CLAIMS_FILE))
    return source if source.complete else replace(source, claims=())  # they are of fewer runs


def _claims(path: Path) -> tuple[dict[str, Any], ...]:
    try:
        return tuple(read_json(path, CLAIMS))
    except FileNotFoundError:
        return ()
    except ValueError as error:
        raise RecordError(str(error)) from error


def _check_settings(source: Source) -> None:
    """Raise unless what figures are arranged by is a setting of every run, and has an order."""
    figure, scatter = source.manifest.get("figure") or {}, source.manifest.get("scatter") or {}
    keys = [figure.get("columns"), figure.get("colour"), scatter.get("colour"), scatter.get("size")]
    for key in (key for key in keys if key is not None):
        values = [record.config.get(key) for record in source.records.values()]
        kinds = {float if isinstance(v, (int, float)) else type(v) for v in values}
        if kinds - {float, str} or len(kinds) > 1:
            raise RecordError(
                f"{source.folder / MANIFEST_FILE} arranges its figures by the setting {key!r}, "
                "which is not a number in every run, nor text in every run"
            )
