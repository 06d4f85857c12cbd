"""A run's folder: what was asked, what was measured, and on what machine."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lossgeom.distributed import ALONE, Ranks
from lossgeom.recording import arrays as array_files
from lossgeom.recording.contents import check_file
from lossgeom.recording.folder import MANIFEST_FILE, ROWS, now, read_manifest
from lossgeom.recording.for_report import ForReport
from lossgeom.recording.forms import parse
from lossgeom.recording.json_files import plain
from lossgeom.recording.mirror import Mirrors
from lossgeom.recording.record_format import RecordError, check_manifest
from lossgeom.recording.rows import (
    MEASURED,
    SUPERSEDES,
    checked_row,
    frame_of,
    latest,
    measured_in,
    read_rows,
)
from lossgeom.recording.shown import in_line, shown
from lossgeom.recording.storage import Copy, Files, opened


class Record:
    """The folder of one run: ``manifest.json``, ``rows.jsonl`` and ``arrays/``.

    The manifest holds the configuration, the versions, the machine and how the run ended; rows are
    measurements, appended one line at a time; arrays are safetensors files. A process killed at
    any instant loses at most the row that it was writing. One process writes at a time.

    Files are compared with their form when they are read. A record that is over says how many rows
    it has, and their checksum; arrays have one of their own.

    Make one with :meth:`create`, read one with :meth:`open`. At the end of a ``with`` block that
    raises nothing, a record is finished; otherwise call :meth:`finish`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     record = Record.create(folder, config={"lr": 0.1})
    ...     record.append({"step": 0, "metric": "loss", "value": 2.3})
    ...     Record.open(folder).rows()
    [{'step': 0, 'metric': 'loss', 'value': 2.3}]
    """

    def __init__(
        self, manifest: dict[str, Any], storage: Files | Copy, ranks: Ranks = ALONE
    ) -> None:
        self.path = storage.path
        self.manifest = manifest
        self.ranks = ranks
        self._storage = storage
        self._writing = threading.RLock()
        rows = self.rows()
        storage.check(len(rows), self._contents)
        self.measured = measured_in(rows)
        self.mirrors = Mirrors()
        self.reopened: str | None = None  # the status it had, where a run that was over goes on
        if storage.is_open and self.is_over:
            self.reopened = self.status
            del self.manifest["contents"]
            self.update(status="running")

    # Making and opening

    @classmethod
    def create(
        cls,
        path: str | Path,
        config: Mapping[str, Any] | None = None,
        *,
        kind: str = "run",
        resume: bool = False,
        ranks: Ranks = ALONE,
    ) -> Record:
        """Start a record in a new or empty folder, or go on with one.

        Args:
            path: the folder.
            config: what identifies the run; anything that JSON can hold.
            kind: ``"run"``, or ``"study"`` for a folder of runs.
            resume: go on with the record that is there, if its config is the same one.
            ranks: the processes that measure together, such as ``lg.ranks()``, all of which call
                this. The first of them writes the folder; what the others do with theirs is kept
                in memory, so that all know what is measured already.

        Raises:
            RecordError: if the folder holds something else, another run, or a run that another
                process is writing, or if it cannot be written.
        """
        manifest, storage = opened(ranks, Path(path), dict(plain(config or {})), kind, resume)
        try:
            return ranks.together(lambda: cls(manifest, storage, ranks))
        except BaseException:
            storage.close()
            raise

    @classmethod
    def open(cls, path: str | Path) -> Record:
        """Read a record, without the right to write.

        Raises:
            RecordError: if the folder does not hold one.
        """
        manifest = read_manifest(Path(path))
        if manifest is None:
            raise RecordError(f"{path} holds no record: expected a file {MANIFEST_FILE} in it")
        return cls(manifest, Files(Path(path), None))

    def close(self) -> None:
        """Let other processes write, and close the mirrors."""
        self._storage.close()
        self.mirrors.close()

    def __enter__(self) -> Record:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is None and self._storage.is_open and self.status == "running":
            self.finish()
        self.close()

    def __repr__(self) -> str:
        return in_line(self.path, self.manifest, self.rows)

    def _repr_html_(self) -> str:
        return shown(self.path, self.manifest, self.rows)

    # The manifest

    @property
    def config(self) -> dict[str, Any]:
        """What identifies the run."""
        config: dict[str, Any] = self.manifest["config"]
        return config

    @property
    def status(self) -> str:
        """``"running"`` until the run says otherwise, such as ``"finished"`` or ``"diverged"``."""
        return str(self.manifest["status"])

    @property
    def is_over(self) -> bool:
        """Whether the run has said how it ended."""
        return self.status != "running"

    @property
    def for_report(self) -> ForReport:
        """What the manifest tells the report."""
        told: ForReport = parse(ForReport, self.manifest, others=True)
        return told

    def describe(self, told: ForReport) -> None:
        """Tell the report more; what is not told here stays as it is.

        Raises:
            ValueError: if a field is of another type.
            RecordError: if the record is not open for writing.
        """
        self.update(**told.told)

    def update(self, **facts: Any) -> None:
        """Write more facts into the manifest.

        Raises:
            ValueError: if what has a meaning in reports, such as ``title``, is of another form.
            RecordError: if the record is not open for writing.
        """
        self._check_writable()
        with self._writing:
            manifest = {**self.manifest, **plain(facts)}
            try:
                check_manifest(manifest)
            except ValueError as error:
                raise ValueError(
                    f"{error}, which is not what a record holds under that name"
                ) from None
            self.manifest = manifest
            self._storage.save(manifest)

    def finish(self, status: str = "finished", *, ended: str | None = None) -> None:
        """Say how the run ended, with what it then holds, and let go of the folder.

        Args:
            status: how it ended.
            ended: when, if it was before now.
        """
        contents = self._storage.contents(len(self.rows()))
        self.update(status=status, ended=ended or now(), contents=contents)
        self.close()

    @property
    def _contents(self) -> dict[str, Any]:
        """What the record held when it was over; nothing for one that is not."""
        return self.manifest.get("contents") or {}

    def check(self, name: str) -> None:
        """Raise a RecordError if a file is not what it was when the run ended."""
        check_file(self.path / name, self._contents)

    # Rows

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one row, in a single write at the end of the file.

        Raises:
            ValueError: for a measurement (a row with ``metric``) without a whole number as ``step``
                and a number as ``value``.
            RecordError: if the record is not open for writing, or the file is not as it was left.
            OSError: if the disk is full; the file ends with the last complete row then.
        """
        self._check_writable()
        if "metric" in row and not row.keys() >= set(MEASURED):
            raise ValueError(f"expected a row with step, metric and value, got {dict(row)}")
        content = plain(dict(row))
        checked = checked_row(content, self.manifest["kind"])
        line = json.dumps(content, allow_nan=False).encode()
        with self._writing:
            self._storage.append(line)
            self.measured |= measured_in([content])
            if SUPERSEDES in content:
                self.measured = measured_in(self.rows())
        if "metric" in content:
            self.mirrors.write(checked)

    def rows(self) -> list[dict[str, Any]]:
        """All complete rows that stand, in the order of writing.

        What a run that went on from a checkpoint has superseded is only in the file.

        Raises:
            RecordError: if a row other than an incomplete last one cannot be read, or the file is
                gone.
        """
        return read_rows(self._storage.lines(), self.path / ROWS, self.manifest["kind"])

    @property
    def written(self) -> int:
        """How many rows there are, also of those that do not stand any more."""
        return len(self._storage.lines())

    def series(self, metric: str) -> tuple[list[int], list[float]]:
        """Steps and values of a metric, by step."""
        rows = [row for row in latest(self.rows()) if row["metric"] == metric]
        return [row["step"] for row in rows], [row["value"] for row in rows]

    def frame(self, *, wide: bool = False) -> Any:
        """The measurements by step, as a data frame of pandas; those of :meth:`series`.

        Args:
            wide: a row for each step and a column of values for each metric, in place of a row for
                each measurement with all that the record holds of it.

        Raises:
            ImportError: without pandas, which the extra ``tables`` brings.

        >>> import tempfile
        >>> with Record.create(tempfile.mkdtemp()) as record:
        ...     record.append({"step": 5, "metric": "loss", "value": 2.0})
        >>> record.frame(wide=True).to_dict()
        {'loss': {5: 2.0}}
        """
        return frame_of(latest(self.rows()), wide)

    def save_arrays(self, name: str, arrays: Mapping[str, Tensor], **facts: Any) -> None:
        """Write tensors and facts about them under a name, replacing what it held."""
        self._check_writable()
        self._storage.save_arrays(name, arrays, facts)

    def load_arrays(self, name: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The tensors and facts under a name; None if there are none.

        Raises:
            RecordError: if they are damaged, or if they were there when the run ended and are not
                any more.
        """
        path = array_files.array_path(self.path, name)
        return array_files.load(path, expected=name in self._contents.get("arrays", ()))

    def _check_writable(self) -> None:
        if not self._storage.is_open:
            raise RecordError(
                f"{self.path} was opened for reading, or is closed; Record.create(path, config, "
                "resume=True) opens it for writing"
            )
