"""What a record that is over says that it holds, by which damage is seen."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lossgeom.recording.folder import CLAIMS_FILE, ROWS
from lossgeom.recording.record_format import RecordError


def contents_of(folder: Path, rows: int) -> dict[str, Any]:
    """The number of rows, checksums of files, and names of arrays."""
    files = [name for name in (ROWS, CLAIMS_FILE) if (folder / name).exists()]
    return {
        "rows": rows,
        "sha256": {name: _sha256(folder / name) for name in files},
        "arrays": sorted(path.stem for path in folder.glob("arrays/*.safetensors")),
    }


def check_file(path: Path, contents: Mapping[str, Any]) -> None:
    """Raise a RecordError if a file is not what it was when its record ended."""
    expected = contents.get("sha256", {}).get(path.name)
    if expected and not path.exists():
        raise RecordError(f"{path} is missing, which was there when this had ended")
    if expected and _sha256(path) != expected:
        raise RecordError(f"{path} is damaged: it is not what it was when this had ended")


def check_rows(path: Path, rows: int, contents: Mapping[str, Any]) -> None:
    """Raise a RecordError if rows are not those with which their record ended."""
    expected = contents.get("rows", rows)
    if rows != expected:
        raise RecordError(
            f"{path} is damaged: it holds {rows} rows, and {expected} when the run had ended"
        )
    check_file(path, contents)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
