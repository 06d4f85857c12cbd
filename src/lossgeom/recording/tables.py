"""Records as tables: one of runs, and one of all that was measured."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lossgeom.messages.extras import required
from lossgeom.recording.crash_safety import write_atomically
from lossgeom.recording.ended import series_of
from lossgeom.recording.folder import (
    RUNS_TABLE,
    SETTINGS_TABLE,
    TABLES,
    flat,
    is_record,
    run_folder,
)
from lossgeom.recording.forms import number
from lossgeom.recording.record import Record

OF_STUDY = "study."  # before the names of settings that all runs of a study have in common
Table = list[dict[str, Any]]


class Frames(NamedTuple):
    """Data frames of pandas.

    Attributes:
        runs: a row for each run.
        rows: a row for each measurement, with the name of its run.
    """

    runs: Any
    rows: Any


def frames(records: Record | str | Path | Iterable[Record | str | Path]) -> Frames:
    """Records as data frames of pandas, for statistics and figures of your own.

    ``runs`` has a row for each run: ``run``, ``study``, the settings, ``status``, ``left_out`` (why
    it is left out of the claims), ``step`` (the last one of which there is a number), and the last
    value of every metric as ``last.METRIC``, be it a number or not. Settings within settings are
    named with a dot: a run of a study has what tells it from the others as ``lr`` and ``seed``, and
    the settings of the study as ``study.network.examples``. A setting that is named as another
    column is ``config.NAME``; a list is text, as in JSON.

    ``rows`` has a row for each measurement: ``run``, ``study``, and all that the record holds of
    it, such as ``step``, ``metric``, ``value``, ``stderr`` and ``threshold``. What is not there is
    NaN, as is what was measured and is no number; then ``status`` says so.

    A run has the name of its folder, or its path where several have that name, so that ``run`` is
    the key of one table in the other.

    Args:
        records: or folders, of runs or of studies, whose runs that have been started are meant; one
            of them, or several.

    Raises:
        ImportError: without pandas, which the extra ``tables`` brings.
        RecordError: if a folder holds no record, or a damaged one.

    >>> import tempfile, lossgeom as lg
    >>> folder = tempfile.mkdtemp()
    >>> with lg.Record.create(folder, {"lr": 0.1}) as record:
    ...     for step, value in enumerate([2.3, 1.9]):
    ...         record.append({"step": step, "metric": "loss", "value": value})
    >>> lg.frames(folder).runs[["lr", "status", "step", "last.loss"]]  # doctest: +SKIP
        lr    status  step  last.loss
    0  0.1  finished     1        1.9
    """
    pandas = required("pandas")
    runs, rows = tables(opened(records))
    return Frames(pandas.DataFrame(runs), pandas.DataFrame(rows))


def opened(records: Record | str | Path | Iterable[Record | str | Path]) -> list[Record]:
    """Records and folders of records, or a single one, as records."""
    given = [records] if isinstance(records, (Record, str, Path)) else records
    return [each if isinstance(each, Record) else Record.open(each) for each in given]


def names_of(runs: Sequence[Record]) -> list[str]:
    """The name of each run's folder, or its path where several have that name."""
    names = [run.path.resolve().name for run in runs]
    alike = Counter(names)
    return [n if alike[n] == 1 else str(run.path) for n, run in zip(names, runs, strict=True)]


def tables(records: Iterable[Record]) -> tuple[Table, Table]:
    """A row for each run of some records, and a row for each measurement, as dicts."""
    runs, rows = Table(), Table()
    for name, study, record in named_runs(records):
        key = {"run": name, "study": study}
        measured = [row for row in record.rows() if "metric" in row]
        runs.append({**key, **_run(record, measured)})
        rows += ({**key, **{name: _cell(value) for name, value in row.items()}} for row in measured)
    return runs, rows


def named_runs(records: Iterable[Record]) -> list[tuple[str, str | None, Record]]:
    """The runs of some records that have been started, with names that tell them apart.

    And the name of the study of each, where it is of one.
    """
    found = [pair for record in records for pair in with_study(record)]
    names = names_of([record for record, _ in found])
    return [(name, study, run) for name, (run, study) in zip(names, found, strict=True)]


def runs_of(study: Record) -> dict[str, Record]:
    """The runs of a study that have been started, by name."""
    planned = study.for_report.planned_runs
    folders = {name: run_folder(study.path, name) for name in planned}
    return {name: Record.open(path) for name, path in folders.items() if is_record(path)}


def write_tables(folder: Path, records: Iterable[Record], *, parquet: bool = False) -> None:
    """Write ``runs.csv``, and ``settings.csv`` with what all runs of a study have in common.

    Args:
        folder: where to.
        records: of studies or runs.
        parquet: write ``runs.parquet`` and ``rows.parquet``, too, with all of both tables.

    Raises:
        ImportError: with ``parquet``, without what the extra ``tables`` brings.
    """
    found = tables(records)
    write_atomically(folder / RUNS_TABLE, as_csv(found[0]))
    if common := _common(found[0]):
        write_atomically(folder / SETTINGS_TABLE, as_csv(common))
    for table, name in zip(found, TABLES[1:3], strict=True) if parquet else ():
        write_atomically(folder / name, _parquet(table))


def with_study(record: Record) -> Iterator[tuple[Record, str | None]]:
    """The runs of a study with its name, or a run alone."""
    if record.manifest["kind"] != "study":
        yield record, None
        return
    for run in runs_of(record).values():
        yield run, record.config.get("study")


def _run(record: Record, measured: Table) -> dict[str, Any]:
    steps = [row["step"] for row in measured]
    told = {
        "status": record.status,
        "left_out": record.for_report.left_out,
        "step": max(steps, default=None),
    }
    taken = {"run", "study", *told}
    settings = {
        f"config.{name}" if name in taken else name: _cell(value)
        for name, value in flat(record.config).items()
    }
    last = {f"last.{metric}": values[-1] for metric, values in series_of(measured).items()}
    return {**settings, **told, **last}


def _common(runs: Table) -> Table:
    """A row for each setting that all runs of a study have in common."""
    return [
        {"study": study, "setting": name.removeprefix(OF_STUDY), "value": value}
        for study, run in {row["study"]: row for row in runs}.items()
        for name, value in run.items()
        if name.startswith(OF_STUDY)
    ]


def _cell(value: Any) -> Any:
    """What a table holds of a value: lists and objects as text."""
    return json.dumps(value) if isinstance(value, (list, dict)) else number(value)


def as_csv(table: Table) -> bytes:
    """A table as CSV, without the settings that all runs of a study have in common."""
    columns = {name: None for row in table for name in row if not name.startswith(OF_STUDY)}
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue().encode(errors="backslashreplace")


def _parquet(table: Table) -> bytes:
    pandas = required("pandas")
    frame = pandas.DataFrame(table)
    for name in frame:
        kind = pandas.api.types.infer_dtype(frame[name], skipna=True)
        if kind.startswith("mixed"):  # a column of Parquet has one type
            frame[name] = frame[name].map(str, na_action="ignore")
    content: bytes = frame.to_parquet()
    return content


def require_tables() -> None:
    """Raise unless there is what writes Parquet."""
    for module in ("pandas", "pyarrow"):
        required(module)
