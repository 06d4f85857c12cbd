"""What a report is made from: the records of one folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lossgeom.recording.claim import Claim
from lossgeom.recording.folder import CLAIMS_FILE, MANIFEST_FILE
from lossgeom.recording.for_report import ForReport
from lossgeom.recording.metric_figures import Sweep
from lossgeom.recording.record import Record
from lossgeom.recording.record_format import BOUND, MEASUREMENT, RecordError, read_claims
from lossgeom.recording.tables import names_of, runs_of

NAMED = 6  # single runs in a title
ALONE = (MEASUREMENT, BOUND)  # kinds of records that have a page of their own


@dataclass(frozen=True)
class Source:
    """A study's folder with its runs and claims, single runs together, or a measurement.

    Attributes:
        folder: where it is.
        manifest: of the study, or of the first run with the settings of all.
        told: what the manifest tells the report, with a title and the notes of all runs.
        records: of the runs that have been started, by name.
        planned: names of all runs, whether started or not.
        claims: what ``claims.json`` holds; none for a study that is not complete.
    """

    folder: Path
    manifest: dict[str, Any]
    told: ForReport
    records: dict[str, Record]
    planned: tuple[str, ...]
    claims: tuple[Claim, ...] = ()

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
    """Read folders: each study, measurement and bound by itself, and all single runs together.

    Raises:
        RecordError: if a folder holds no record, or a damaged one.
    """
    found = {folder: Record.open(folder) for folder in folders}

    def of(*kinds: str) -> dict[Path, Record]:
        return {f: record for f, record in found.items() if record.manifest["kind"] in kinds}

    studies, alone = of("study"), of(*ALONE)
    runs = {f: record for f, record in found.items() if f not in studies and f not in alone}
    sources = _told_apart([_study(folder, record) for folder, record in studies.items()])
    sources += [_single_runs({folder: record}) for folder, record in alone.items()]
    sources += [_single_runs(runs)] if runs else []
    for source in sources:
        _check_settings(source)
    return sources


def _single_runs(runs: dict[Path, Record]) -> Source:
    names = names_of(list(runs.values()))
    records = dict(zip(names, runs.values(), strict=True))
    folder, first = next(iter(runs.items()))
    title = first.for_report.title if first.manifest["kind"] in ALONE else None
    title = title or (", ".join(names) if len(names) <= NAMED else f"{len(names)} runs")
    told = replace(first.for_report, title=title, notes=_notes(records))
    manifest = {**first.manifest, "config": _together(records)}
    return Source(folder, manifest, told, records, tuple(names))


def _notes(records: dict[str, Record]) -> tuple[str, ...]:
    """The notes of several runs, each with the name of its run where they differ."""
    notes = {name: record.for_report.notes for name, record in records.items()}
    if len(set(notes.values())) == 1:
        return next(iter(notes.values()))
    return tuple(f"{name}: {'; '.join(said)}" for name, said in notes.items() if said)


def _together(records: dict[str, Record]) -> dict[str, Any]:
    """The settings of several runs: each value once where they agree, by run where they differ."""
    configs = {name: record.config for name, record in records.items()}
    keys = {key: None for config in configs.values() for key in config}
    together = {}
    for key in keys:
        values = {name: config.get(key) for name, config in configs.items()}
        first = next(iter(values.values()))
        together[key] = first if all(value == first for value in values.values()) else values
    return together


def _study(folder: Path, study: Record) -> Source:
    told = study.for_report
    told = replace(told, title=told.title or folder.resolve().name)
    records = runs_of(study)
    study.check(CLAIMS_FILE)
    there = (folder / CLAIMS_FILE).exists()
    claims = read_claims(folder / CLAIMS_FILE) if there else ()
    source = Source(folder, study.manifest, told, records, told.planned_runs, claims)
    return source if source.complete else replace(source, claims=())  # they are of fewer runs


def _told_apart(studies: list[Source]) -> list[Source]:
    """Add the folder to the titles that several have."""
    titles = [source.told.title for source in studies]
    told = [replace(s.told, title=f"{s.told.title}: {s.folder}") for s in studies]
    return [
        replace(source, told=apart) if titles.count(source.told.title) > 1 else source
        for source, apart in zip(studies, told, strict=True)
    ]


def _check_settings(source: Source) -> None:
    """Raise unless every run has the settings that order the figures, as numbers or text."""
    figure, scatter, sweep = source.told.figure, source.told.scatter, source.told.sweep
    keys = [figure.columns, figure.colour] if figure else []
    keys += [scatter.colour, scatter.size] if scatter else []
    keys += [sweep.lines, *_settings(sweep, source)] if sweep else []
    for key in dict.fromkeys(key for key in keys if key is not None):
        values = [record.config.get(key) for record in source.records.values()]
        kinds = {float if isinstance(v, (int, float)) else type(v) for v in values}
        if kinds - {float, str} or len(kinds) > 1:
            raise RecordError(
                f"{source.folder / MANIFEST_FILE} arranges its figures by the setting {key!r}, "
                "which is not a number in every run, nor text in every run"
            )


def _settings(sweep: Sweep, source: Source) -> list[str]:
    """What is varied in a sweep, without what is no setting but a metric."""
    known = {key for record in source.records.values() for key in record.config}
    return [column.setting for column in sweep.columns if column.setting in known]
