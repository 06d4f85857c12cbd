"""The folder of a record: its files, its manifest, and whether a run may write there."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from lossgeom.recording.crash_safety import (
    LOCK,
    drop_incomplete_line,
    is_temporary,
    remove_temporaries,
)
from lossgeom.recording.environment import environment
from lossgeom.recording.json_files import write_json
from lossgeom.recording.record_format import SCHEMA, RecordError, check_manifest, read_json

MANIFEST_FILE, ROWS, CLAIMS_FILE = "manifest.json", "rows.jsonl", "claims.json"
RUNS_TABLE, SETTINGS_TABLE = "runs.csv", "settings.csv"
TABLES = (RUNS_TABLE, "runs.parquet", "rows.parquet", SETTINGS_TABLE)
TOLD = 3  # settings in which a folder is another one


def begun(path: Path, config: dict[str, Any], kind: str) -> dict[str, Any]:
    """The manifest of a record that is begun, or gone on with, in a folder that is locked."""
    remove_temporaries(path, (MANIFEST_FILE, CLAIMS_FILE, *TABLES, "arrays/*"))
    manifest = read_manifest(path)
    if manifest is None:
        manifest = _new_manifest(kind, config)
        (path / ROWS).touch()  # first, so that a record without this file is damaged
        write_json(path / MANIFEST_FILE, manifest)
    drop_incomplete_line(path / ROWS)
    return manifest


def _new_manifest(kind: str, config: dict[str, Any]) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "kind": kind,
        "config": config,
        "status": "running",
        "created": now(),
        **environment(),
    }


def now() -> str:
    """The time, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def is_record(folder: Path) -> bool:
    """Whether a folder holds a record, which may be damaged."""
    return (folder / MANIFEST_FILE).exists()


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


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest in a folder; None if there is none.

    Raises:
        RecordError: if it is damaged, or is not one that this version reads.
    """
    path = folder / MANIFEST_FILE
    try:
        manifest = read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    schema = manifest.get("schema") if isinstance(manifest, dict) else None
    if type(schema) is not int:
        raise RecordError(f"{path} is not a record of schema {SCHEMA}")
    if schema != SCHEMA:
        raise RecordError(
            f"{path} is a record of schema {schema}, which another version of lossgeom wrote; this "
            f"one reads schema {SCHEMA}. Run it again into another folder"
        )
    try:
        check_manifest(manifest)
        if manifest["status"] != "running" and manifest.get("contents") is None:
            raise ValueError("contents is missing")
    except ValueError as error:
        raise RecordError(f"{path} is damaged: {error}") from None
    return dict(manifest)


def check_may_write(path: Path, config: dict[str, Any], kind: str, resume: bool) -> None:
    """Raise a RecordError unless a folder is new or empty, or holds this very run to go on with."""
    existing = read_manifest(path)
    if existing is None:
        _check_is_empty(path)
    elif not resume:
        raise RecordError(
            f"{path} holds a {existing['kind']} already ({existing['status']}); choose another "
            "folder, or pass resume=True to go on with that very one"
        )
    elif existing["kind"] != kind or existing["config"] != config:
        raise RecordError(
            f"{path} holds another {existing['kind']} ({_difference(existing['config'], config)}); "
            "choose another folder, with --out on a command line"
        )


def _check_is_empty(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise RecordError(f"{path} is a file; expected a folder, or nothing there yet")
    strangers = [p.name for p in path.iterdir() if not _is_ours(p)] if path.exists() else []
    if strangers:
        raise RecordError(
            f"{path} holds other things ({', '.join(sorted(strangers)[:3])}); expected an empty "
            "folder, or nothing there yet"
        )


def _is_ours(path: Path) -> bool:
    """Whether a file may be left over from a process that was killed before its first manifest."""
    empty_rows = path.name == ROWS and path.stat().st_size == 0
    return path.name == LOCK or empty_rows or is_temporary(path)


def _difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    old, new = flat(old), flat(new)
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    told = [f"{k}: there {old.get(k)!r}, asked {new.get(k)!r}" for k in keys[:TOLD]]
    more = [f"and {len(keys) - TOLD} more"] if len(keys) > TOLD else []
    return "; ".join(told + more) or "its kind"


def flat(settings: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Settings by name, those within others with a dot.

    >>> flat({"lr": 0.1, "network": {"widths": [8, 8]}})
    {'lr': 0.1, 'network.widths': [8, 8]}
    """
    found = dict[str, Any]()
    for name, value in settings.items():
        inside = isinstance(value, Mapping)
        found |= flat(value, f"{before}{name}.") if inside else {before + name: value}
    return found
