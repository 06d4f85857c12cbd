"""Where a record is: in its folder or, beside the process that writes there, in memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock
from torch import Tensor

from lossgeom.distributed import Ranks
from lossgeom.distributed import ranks as several
from lossgeom.recording import arrays as array_files
from lossgeom.recording.contents import check_rows, contents_of
from lossgeom.recording.crash_safety import append_line, lock
from lossgeom.recording.folder import MANIFEST_FILE, ROWS, begun, check_may_write
from lossgeom.recording.json_files import write_json
from lossgeom.recording.record_format import RecordError


class Files:
    """The files of a record, which only the holder of the lock writes."""

    def __init__(self, path: Path, held: FileLock | None) -> None:
        self.path = path
        self._lock = held
        self._size = len(self._rows())

    @property
    def is_open(self) -> bool:
        """Whether they may be written."""
        return self._lock is not None

    def close(self) -> None:
        """Let other processes write."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def lines(self) -> list[bytes]:
        """The complete lines of the rows; a last one without an end is left out."""
        return self._rows().split(b"\n")[:-1]

    def _rows(self) -> bytes:
        try:
            return (self.path / ROWS).read_bytes()
        except OSError as error:
            raise RecordError(f"{self.path / ROWS} cannot be read: {error.strerror}") from None

    def append(self, line: bytes) -> None:
        """Write a line of the rows, in a single write."""
        self._size = append_line(self.path / ROWS, line + b"\n", self._size)

    def save(self, manifest: Mapping[str, Any]) -> None:
        """Write the manifest."""
        write_json(self.path / MANIFEST_FILE, manifest)

    def save_arrays(
        self, name: str, arrays: Mapping[str, Tensor], facts: Mapping[str, Any]
    ) -> None:
        """Write the arrays of a name."""
        array_files.save(array_files.array_path(self.path, name), arrays, facts)

    def check(self, rows: int, contents: Mapping[str, Any]) -> None:
        """Raise a RecordError unless the rows are those with which the record ended."""
        check_rows(self.path / ROWS, rows, contents)

    def contents(self, rows: int) -> dict[str, Any]:
        """What there is at the end, safe on the disk."""
        with (self.path / ROWS).open("rb") as file:
            os.fsync(file.fileno())
        return contents_of(self.path, rows)


class Copy:
    """What another process has written to the files of a record, and writes from now on."""

    def __init__(self, path: Path, lines: list[bytes]) -> None:
        self.path = path
        self.is_open = True
        self._lines = lines

    def close(self) -> None:
        """Take no more."""
        self.is_open = False

    def lines(self) -> list[bytes]:
        """The lines of the rows."""
        return list(self._lines)

    def append(self, line: bytes) -> None:
        """Keep a line of the rows."""
        self._lines.append(line)

    def save(self, manifest: Mapping[str, Any]) -> None:
        """Nothing: the record has it."""

    def save_arrays(
        self, name: str, arrays: Mapping[str, Tensor], facts: Mapping[str, Any]
    ) -> None:
        """Nothing: no measurement depends on arrays that are there."""

    def check(self, rows: int, contents: Mapping[str, Any]) -> None:
        """Nothing: the process that has the files does."""

    def contents(self, rows: int) -> dict[str, Any]:
        """What there is at the end."""
        return {"rows": rows, "sha256": {}, "arrays": []}


def opened(
    ranks: Ranks, path: Path, config: dict[str, Any], kind: str, resume: bool
) -> tuple[dict[str, Any], Files | Copy]:
    """The manifest of a record that is begun or gone on with, and its files on the first rank."""

    def files() -> tuple[dict[str, Any], Files | Copy, list[bytes]]:
        if ranks.rank > 0:
            return {}, Copy(path, []), []
        check_may_write(path, config, kind, resume)
        held = lock(path)
        try:
            check_may_write(path, config, kind, resume)  # now that nobody else can write
            there = begun(path, config, kind), Files(path, held)
            return *there, there[1].lines()
        except BaseException:
            held.release()
            raise

    try:
        manifest, storage, lines = ranks.together(files)
    except RecordError as error:
        if ranks.size < several().size:
            raise type(error)(
                f"{error}. Processes that share a run all pass ranks=lossgeom.ranks(), and the "
                "first writes"
            ) from error
        raise
    manifest, lines = ranks.from_first((manifest, lines))
    return manifest, storage if ranks.rank == 0 else Copy(path, lines)
