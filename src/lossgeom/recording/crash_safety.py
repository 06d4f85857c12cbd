"""Crash safety: whole files, one writer at a time, and what killed processes leave behind.

A file is replaced as a whole or not at all. A row is one write at the end of a file, of which a
process that is killed loses at most the last line. Whoever goes on with a folder first takes its
lock, and clears away what was left half written.
"""

from __future__ import annotations

import errno
import os
import re
import uuid
from collections.abc import Iterable
from pathlib import Path

from filelock import FileLock, Timeout

from lossgeom.recording.record_format import RecordError

LOCK = ".lock"
LOCK_SECONDS = 5.0  # what the processes of a run that was killed may take to end


class LockedError(RecordError):
    """A folder is being written by another process."""


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file so that it is seen with its old content or its new one, never in between."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def is_temporary(path: Path) -> bool:
    """Whether a file is what a killed process left of :func:`write_atomically`."""
    return re.fullmatch(r"\..+\.[0-9a-f]{32}\.tmp", path.name) is not None


def remove_temporaries(folder: Path, files: Iterable[str]) -> None:
    """Remove what killed processes left of these files, which only the holder of the lock writes.

    Args:
        folder: where the files are.
        files: patterns of their names, such as ``"arrays/*"``.
    """
    for name in files:
        parent, _, pattern = name.rpartition("/")
        for path in (folder / parent).glob(f".{pattern}.*"):
            if is_temporary(path):
                path.unlink(missing_ok=True)


def lock(folder: Path) -> FileLock:
    """Make a folder, and take its lock, which ends with the process if not before.

    Raises:
        LockedError: if another process has it.
        RecordError: if the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = FileLock(folder / LOCK)
        held.acquire(timeout=LOCK_SECONDS)
    except Timeout:
        raise LockedError(
            f"{folder} is being written by another process, or by a record that is still open in "
            f"this one and has to be closed; if a lost machine has left it so, delete {LOCK} in it"
        ) from None
    except OSError as error:
        raise RecordError(f"{folder} cannot be written: {error.strerror or error}") from None
    return held


def append_line(path: Path, line: bytes, size: int) -> int:
    """Write a line at the end of a file of this size in a single write; return the new size.

    Raises:
        RecordError: if the file is gone, or is of another size.
        OSError: if the disk is full; the file is as before then.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    except FileNotFoundError:
        raise RecordError(f"{path} is gone; it was there when the record was opened") from None
    try:
        if os.fstat(descriptor).st_size != size:
            raise RecordError(f"{path} has been changed by something else; nothing is appended")
        if os.write(descriptor, line) < len(line):
            os.ftruncate(descriptor, size)
            raise OSError(errno.ENOSPC, "no space left for a row", str(path))
    finally:
        os.close(descriptor)
    return size + len(line)


def drop_incomplete_line(path: Path) -> None:
    """Cut off the last line of a file if a killed process did not come to its end."""
    if path.exists():
        content = path.read_bytes()
        complete = content.rfind(b"\n") + 1
        if complete < len(content):
            os.truncate(path, complete)
