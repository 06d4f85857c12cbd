"""A run's folder: what was asked, what was measured, and on what machine."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import threading
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import safetensors.torch
from filelock import FileLock, Timeout
from torch import Tensor

from lossgeom.problem.passes import digest
from lossgeom.recording.environment import environment
from lossgeom.recording.files import is_temporary, plain, write_atomically, write_json
from lossgeom.recording.record_format import (
    ARRAY,
    MANIFEST,
    SCHEMA,
    checked_row,
    mismatch,
    read_json,
    read_row,
)
from lossgeom.wording import printable

MANIFEST_FILE, ROWS, CLAIMS_FILE, LOCK = "manifest.json", "rows.jsonl", "claims.json", ".lock"
LOCK_SECONDS = 5.0  # what the processes of a run that was killed may take to end


class RecordError(Exception):
    """A folder is not what was expected; nothing has been written."""

    def __str__(self) -> str:
        return printable(str(self.args[0]))


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

    def __init__(self, path: Path, manifest: dict[str, Any], lock: FileLock | None) -> None:
        self.path = path
        self.manifest = manifest
        self._lock = lock
        self._writing = threading.RLock()
        rows = self.rows()
        self._size = (path / ROWS).stat().st_size
        if "contents" in manifest:
            self._check_contents(len(rows))
        self.measured = {(row["step"], row["metric"]) for row in rows if "metric" in row}

    # Making and opening

    @classmethod
    def create(
        cls,
        path: str | Path,
        config: Mapping[str, Any] | None = None,
        *,
        kind: str = "run",
        resume: bool = False,
    ) -> Record:
        """Start a record in a new or empty folder, or go on with one.

        Args:
            path: the folder.
            config: what identifies the run; anything that JSON can hold.
            kind: ``"run"``, or ``"study"`` for a folder of runs.
            resume: go on with the record that is there, if its config is the same one.

        Raises:
            RecordError: if the folder holds something else, another run, or a run that another
                process is writing, or if it cannot be written.
        """
        path, asked = Path(path), dict(plain(config or {}))
        _check_may_write(path, asked, kind, resume)
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path / LOCK)
            lock.acquire(timeout=LOCK_SECONDS)
        except Timeout:
            raise RecordError(
                f"{path} is being written by another process, or by a record that is still open in "
                "this one and wants to be closed"
            ) from None
        except OSError as error:
            raise RecordError(f"{path} cannot be written: {error.strerror or error}") from None
        try:
            _check_may_write(path, asked, kind, resume)  # again, now that nobody else can write
            _remove_temporaries(path)
            manifest = _read_manifest(path)
            if manifest is None:
                manifest = _new_manifest(kind, asked)
                (path / ROWS).touch()  # first, so that a record without rows has lost them
                write_json(path / MANIFEST_FILE, manifest)
            _drop_partial_row(path / ROWS)
            record = cls(path, manifest, lock)
            if record.is_over:
                record._reopen()
            return record
        except BaseException:
            lock.release()
            raise

    @classmethod
    def open(cls, path: str | Path) -> Record:
        """Read a record, without the right to write.

        Raises:
            RecordError: if the folder does not hold one.
        """
        manifest = _read_manifest(Path(path))
        if manifest is None:
            raise RecordError(f"{path} holds no record: expected a file {MANIFEST_FILE} in it")
        return cls(Path(path), manifest, None)

    def close(self) -> None:
        """Let other processes write."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Record:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is None and self._lock is not None and self.status == "running":
            self.finish()
        self.close()

    def __repr__(self) -> str:
        return f"Record({str(self.path)!r}, status={self.status!r}, rows={len(self.rows())})"

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

    def update(self, **facts: Any) -> None:
        """Write more facts into the manifest.

        Raises:
            ValueError: if what has a meaning in reports, such as ``title``, is of another form.
            RecordError: if the record is not open for writing.
        """
        self._check_writable()
        with self._writing:
            manifest = {**self.manifest, **plain(facts)}
            wrong = mismatch(manifest, MANIFEST)
            if wrong is not None:
                raise ValueError(f"{wrong}, which is not what a record holds under that name")
            self.manifest = manifest
            write_json(self.path / MANIFEST_FILE, self.manifest)

    def finish(self, status: str = "finished", *, ended: str | None = None) -> None:
        """Say how the run ended, with what it then holds, and let go of the folder.

        Args:
            status: how it ended.
            ended: when, if it was before now.
        """
        with (self.path / ROWS).open("rb") as rows:
            os.fsync(rows.fileno())
        files = [name for name in (ROWS, CLAIMS_FILE) if (self.path / name).exists()]
        contents = {
            "rows": len(self.rows()),
            "sha256": {name: _sha256(self.path / name) for name in files},
            "arrays": sorted(path.stem for path in self.path.glob("arrays/*.safetensors")),
        }
        self.update(status=status, ended=ended or _now(), contents=contents)
        self.close()

    def check(self, name: str) -> None:
        """Raise a RecordError if a file is not what it was when the run ended."""
        path, expected = self.path / name, self.manifest.get("contents", {}).get("sha256", {})
        if name in expected and not path.exists():
            raise RecordError(f"{path} is missing, which was there when this had ended")
        if name in expected and _sha256(path) != expected[name]:
            raise RecordError(f"{path} is damaged: it is not what it was when this had ended")

    def _check_contents(self, rows: int) -> None:
        expected = self.manifest["contents"]["rows"]
        if rows != expected:
            raise RecordError(
                f"{self.path / ROWS} is damaged: it holds {rows} rows, and {expected} when the run "
                "had ended"
            )
        self.check(ROWS)

    def _reopen(self) -> None:
        self.manifest = {k: v for k, v in self.manifest.items() if k != "contents"}
        self.update(status="running")

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
        if "metric" in row and not {"step", "value"} <= row.keys():
            raise ValueError(f"expected a row with step, metric and value, got {dict(row)}")
        content = plain(dict(row))
        checked_row(content, str(self.manifest["kind"]))
        line = (json.dumps(content, allow_nan=False) + "\n").encode()
        with self._writing:
            self._append(line)
            if "metric" in content:
                self.measured.add((content["step"], content["metric"]))

    def _append(self, line: bytes) -> None:
        path = self.path / ROWS
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
        except FileNotFoundError:
            raise RecordError(f"{path} is gone; it was there when the record was opened") from None
        try:
            if os.fstat(descriptor).st_size != self._size:
                raise RecordError(f"{path} has been changed by something else; nothing is appended")
            if os.write(descriptor, line) < len(line):
                os.ftruncate(descriptor, self._size)
                raise OSError(errno.ENOSPC, "no space left for a row", str(path))
            self._size += len(line)
        finally:
            os.close(descriptor)

    def rows(self) -> list[dict[str, Any]]:
        """All complete rows, in the order of writing.

        Raises:
            RecordError: if a row other than an incomplete last one cannot be read, or the file is
                gone.
        """
        path = self.path / ROWS
        try:
            *lines, _incomplete = path.read_bytes().split(b"\n")
        except OSError as error:
            raise RecordError(f"{path} cannot be read: {error.strerror}") from None
        rows = []
        for i, line in enumerate(lines):
            try:
                rows.append(read_row(line, self.manifest["kind"]))
            except ValueError as error:
                raise RecordError(f"{path} is damaged in line {i + 1}: {error}") from error
        return rows

    def series(self, metric: str) -> tuple[list[int], list[float]]:
        """Steps and values of a metric, by step."""
        points = {row["step"]: row["value"] for row in self.rows() if row.get("metric") == metric}
        steps = sorted(points)
        return steps, [points[step] for step in steps]

    # Arrays

    def save_arrays(self, name: str, arrays: Mapping[str, Tensor], **facts: Any) -> None:
        """Write tensors and facts about them under a name, replacing what it held."""
        self._check_writable()
        (self.path / "arrays").mkdir(exist_ok=True)
        tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in arrays.items()}
        described = json.dumps(plain(facts))
        metadata = {"facts": described, "sha256": _sum(tensors, described)}
        write_atomically(self._array_path(name), safetensors.torch.save(tensors, metadata))

    def load_arrays(self, name: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The tensors and facts under a name; None if there are none.

        Raises:
            RecordError: if they are damaged, or if they were there when the run ended and are not
                any more.
        """
        path = self._array_path(name)
        if not path.exists():
            if name in self.manifest.get("contents", {}).get("arrays", ()):
                raise RecordError(f"{path} is missing, which was there when this had ended")
            return None
        try:
            content = path.read_bytes()  # safe_open takes no path that is not in UTF-8
            tensors = safetensors.torch.load(content)
            header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
            metadata = header["__metadata__"]
            if _sum(tensors, metadata["facts"]) != metadata["sha256"]:
                raise ValueError("its checksum is another one")
            return tensors, json.loads(metadata["facts"])
        except Exception as error:
            raise RecordError(f"{path} is damaged: {error}") from error

    def _array_path(self, name: str) -> Path:
        if not ARRAY.fullmatch(name):
            raise ValueError(f"expected a name of letters, digits, - and _, got {name!r}")
        return self.path / "arrays" / f"{name}.safetensors"

    def _check_writable(self) -> None:
        if self._lock is None:
            raise RecordError(
                f"{self.path} was opened for reading, or is closed; Record.create(path, config, "
                "resume=True) opens it for writing"
            )


def _new_manifest(kind: str, config: dict[str, Any]) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "kind": kind,
        "config": config,
        "status": "running",
        "created": _now(),
        **environment(),
    }


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def run_folder(study: Path, name: str) -> Path:
    """The folder of a run of a study, which is inside the study's own.

    Raises:
        RecordError: for a name that leads elsewhere.
    """
    path = study / "runs" / name
    elsewhere = name in ("", ".", "..") or "\0" in name or Path(name).name != name
    if elsewhere or not path.resolve().is_relative_to(study.resolve()):
        raise RecordError(f"{study} names a run {name!r}, which is not a folder of its own runs")
    return path


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _sum(tensors: Mapping[str, Tensor], described: str) -> str:
    """A checksum of tensors with their names, and of the facts about them."""
    parts = [(n, str(t.dtype), tuple(t.shape), digest(t)) for n, t in sorted(tensors.items())]
    return hashlib.sha256(repr((parts, described)).encode()).hexdigest()


def _read_manifest(path: Path) -> dict[str, Any] | None:
    try:
        manifest = read_json(path / MANIFEST_FILE, {"schema": int})
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        if "cannot be read" in str(error):
            raise RecordError(str(error)) from None
        raise RecordError(f"{path / MANIFEST_FILE} is not a record of schema {SCHEMA}") from None
    if manifest["schema"] != SCHEMA:
        raise RecordError(
            f"{path / MANIFEST_FILE} is a record of schema {manifest['schema']}, which another "
            f"version of lossgeom wrote; this one reads schema {SCHEMA}. Run it again into another "
            "folder"
        )
    wrong = mismatch(manifest, MANIFEST)
    if wrong is None and manifest["status"] != "running" and "contents" not in manifest:
        wrong = "contents is missing"
    if wrong is not None:
        raise RecordError(f"{path / MANIFEST_FILE} is damaged: {wrong}")
    return dict(manifest)


def _check_may_write(path: Path, config: dict[str, Any], kind: str, resume: bool) -> None:
    existing = _read_manifest(path)
    if existing is None:
        if path.exists() and not path.is_dir():
            raise RecordError(f"{path} is a file; expected a folder, or nothing there yet")
        strangers = [p.name for p in path.iterdir() if not _is_ours(p)] if path.exists() else []
        if strangers:
            raise RecordError(
                f"{path} holds other things ({', '.join(sorted(strangers)[:3])}); expected an "
                "empty folder, or nothing there yet"
            )
        return
    if not resume:
        raise RecordError(
            f"{path} holds a {existing['kind']} already ({existing['status']}); choose another "
            "folder, or pass resume=True to go on with that very one"
        )
    if existing["kind"] != kind or existing["config"] != config:
        raise RecordError(
            f"{path} holds another {existing['kind']} ({_difference(existing['config'], config)}); "
            "choose another folder"
        )


def _is_ours(path: Path) -> bool:
    """Whether a file is what a process killed before its first manifest leaves behind."""
    empty_rows = path.name == ROWS and path.stat().st_size == 0
    return path.name == LOCK or empty_rows or is_temporary(path)


def _remove_temporaries(path: Path) -> None:
    """Remove what killed processes have left of files that only the holder of the lock writes."""
    for temporary in (*path.glob(f".{MANIFEST_FILE}.*"), *path.glob(f".{CLAIMS_FILE}.*"),
                      *path.glob("arrays/.*")):  # fmt: skip
        if is_temporary(temporary):
            temporary.unlink(missing_ok=True)


def _difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return "; ".join(f"{k}: there {old.get(k)!r}, asked {new.get(k)!r}" for k in keys) or "its kind"


def _drop_partial_row(path: Path) -> None:
    if path.exists():
        content = path.read_bytes()
        complete = content.rfind(b"\n") + 1
        if complete < len(content):
            os.truncate(path, complete)
