"""A run's folder: what was asked, what was measured, and on what machine."""

from __future__ import annotations

import errno
import importlib.metadata
import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import safetensors.torch
from filelock import FileLock, Timeout
from torch import Tensor

from lossgeom.files import number, plain, write_atomically, write_json

SCHEMA = 1
MANIFEST, ROWS, LOCK = "manifest.json", "rows.jsonl", ".lock"
LOCK_SECONDS = 5.0  # what the processes of a run that was killed may take to end


class RecordError(Exception):
    """A folder is not what was expected; nothing has been written."""


class Record:
    """The folder of one run: ``manifest.json``, ``rows.jsonl`` and ``arrays/``.

    The manifest holds the configuration, the versions, the machine and how the run ended; rows are
    measurements, appended one line at a time; arrays are safetensors files. A process killed at
    any instant loses at most the row that it was writing. One process writes at a time.

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
        rows = self.rows()
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
            manifest = _read_manifest(path)
            if manifest is None or manifest["status"] != "running":
                manifest = {**(manifest or _new_manifest(kind, asked)), "status": "running"}
                write_json(path / MANIFEST, manifest)
            _drop_partial_row(path / ROWS)
            return cls(path, manifest, lock)
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
            raise RecordError(f"{path} holds no record: expected a file {MANIFEST} in it")
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
        """Write more facts into the manifest."""
        self._check_writable()
        self.manifest = {**self.manifest, **plain(facts)}
        write_json(self.path / MANIFEST, self.manifest)

    def finish(self, status: str = "finished") -> None:
        """Say how the run ended, and let go of the folder."""
        if (self.path / ROWS).exists():
            with (self.path / ROWS).open("rb") as rows:
                os.fsync(rows.fileno())
        self.update(status=status, ended=_now())
        self.close()

    # Rows

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one row, in a single write at the end of the file.

        Raises:
            ValueError: for a measurement (a row with ``metric``) without ``step`` or ``value``.
            RecordError: if the record is not open for writing.
            OSError: if the disk is full; the file ends with the last complete row then.
        """
        self._check_writable()
        if "metric" in row and not {"step", "value"} <= row.keys():
            raise ValueError(f"expected a row with step, metric and value, got {dict(row)}")
        line = (json.dumps(plain(dict(row)), allow_nan=False) + "\n").encode()
        descriptor = os.open(self.path / ROWS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            size = os.fstat(descriptor).st_size
            if os.write(descriptor, line) < len(line):
                os.ftruncate(descriptor, size)
                raise OSError(errno.ENOSPC, "no space left for a row", str(self.path / ROWS))
        finally:
            os.close(descriptor)
        if "metric" in row:
            self.measured.add((row["step"], row["metric"]))

    def rows(self) -> list[dict[str, Any]]:
        """All complete rows, in the order of writing.

        Raises:
            RecordError: if a row other than an incomplete last one cannot be read.
        """
        path = self.path / ROWS
        if not path.exists():
            return []
        *lines, _incomplete = path.read_bytes().split(b"\n")
        rows = []
        for i, line in enumerate(lines):
            try:
                rows.append({key: number(value) for key, value in json.loads(line).items()})
            except (ValueError, AttributeError) as error:
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
        blob = safetensors.torch.save(tensors, {"facts": json.dumps(plain(facts))})
        write_atomically(self._array_path(name), blob)

    def load_arrays(self, name: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The tensors and facts under a name; None if there are none."""
        path = self._array_path(name)
        if not path.exists():
            return None
        content = path.read_bytes()  # safe_open takes no path that is not in UTF-8
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        return safetensors.torch.load(content), json.loads(header["__metadata__"]["facts"])

    def _array_path(self, name: str) -> Path:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise ValueError(f"expected a name of letters, digits, - and _, got {name!r}")
        return self.path / "arrays" / f"{name}.safetensors"

    def _check_writable(self) -> None:
        if self._lock is None:
            raise RecordError(
                f"{self.path} was opened for reading, or is closed; Record.create(path, config, "
                "resume=True) opens it for writing"
            )


def environment() -> dict[str, Any]:
    """Versions, git commit and machine, for a manifest."""
    packages = ("lossgeom", "torch", "numpy")
    return {
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in packages},
        },
        "git_commit": _git_commit(),
        "machine": {
            "system": platform.platform(),
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
        },
    }


def _git_commit() -> str | None:
    """The commit of the working folder, with + if it has changes; None outside a repository."""
    try:
        git = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"],  # noqa: S607
            capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return git.stdout.strip() or None


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


def _read_manifest(path: Path) -> dict[str, Any] | None:
    try:
        manifest = json.loads((path / MANIFEST).read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise RecordError(f"{path / MANIFEST} cannot be read: {error}") from None
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        raise RecordError(f"{path / MANIFEST} is not a record of schema {SCHEMA}")
    return manifest


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
    return path.name == LOCK or (path.name.startswith(".") and path.name.endswith(".tmp"))


def _difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return "; ".join(f"{k}: there {old.get(k)!r}, asked {new.get(k)!r}" for k in keys) or "its kind"


def _drop_partial_row(path: Path) -> None:
    if path.exists():
        content = path.read_bytes()
        complete = content.rfind(b"\n") + 1
        if complete < len(content):
            os.truncate(path, complete)
