"""Folders that records may be written to, and those that they may not."""

import os
from pathlib import Path

import pytest

from lossgeom.recording.folder import run_folder
from lossgeom.recording.record import Record
from lossgeom.recording.record_format import RecordError


@pytest.mark.quick
def test_refuses_what_is_not_its_own(tmp_path):
    with Record.create(tmp_path / "a", {"lr": 0.1}):
        pass
    before = snapshot(tmp_path)
    with pytest.raises(RecordError, match="holds a run already"):
        Record.create(tmp_path / "a", {"lr": 0.1})
    with pytest.raises(RecordError, match=r"another run \(lr: there 0\.1, asked 0\.2\)"):
        Record.create(tmp_path / "a", {"lr": 0.2}, resume=True)
    with pytest.raises(RecordError, match="holds another run"):
        Record.create(tmp_path / "a", {"lr": 0.1}, kind="study", resume=True)
    with pytest.raises(RecordError, match="holds other things"):
        Record.create(tmp_path)
    with pytest.raises(RecordError, match="is a file"):
        Record.create(tmp_path / "a" / "manifest.json")
    with pytest.raises(RecordError, match="holds no record"):
        Record.open(tmp_path)
    assert snapshot(tmp_path) == before


@pytest.mark.quick
def test_names_few_of_many_settings_that_differ(tmp_path):
    with Record.create(tmp_path / "a", {"study": "a", "network": {"model": "mlp", "widths": [8]}}):
        pass
    other = {"study": "a", "network": {"model": "mlp", "widths": [4]}}
    told = r"\(network.widths: there \[8\], asked \[4\]\); choose another folder"
    with pytest.raises(RecordError, match=told):
        Record.create(tmp_path / "a", other, resume=True)
    other = {"study": "b", "lr": 1, "momentum": 0, "steps": 2, "network": {"widths": [8]}}
    told = r"\(study: there 'a', asked 'b'; .*; lr: there None, asked 1; and 2 more\);"
    with pytest.raises(RecordError, match=told):
        Record.create(tmp_path / "a", other, resume=True)


def snapshot(folder: Path):
    return {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.rglob("*") if p.is_file()}


def test_a_manifest_of_something_else(tmp_path):
    (tmp_path / "manifest.json").write_text('{"name": "web app"}')
    with pytest.raises(RecordError, match="is not a record of schema 2"):
        Record.open(tmp_path)
    (tmp_path / "manifest.json").write_text('{"schema": 1, "kind": "run"}')
    with pytest.raises(RecordError, match=r"schema 1, which another version .* this one reads sch"):
        Record.open(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(RecordError, match="cannot be read"):
        Record.create(tmp_path)


def test_unwritable_folder(tmp_path):
    if os.geteuid() == 0:
        with pytest.raises(RecordError, match="cannot be written"):
            Record.create("/proc/lossgeom")
        return
    tmp_path.chmod(0o500)
    with pytest.raises(RecordError, match="cannot be written"):
        Record.create(tmp_path / "run")


@pytest.mark.parametrize("name", ["..", ".", "", "../x", "/etc", "a/../../b", "a\0b", "link"])
def test_runs_of_a_study_stay_in_its_folder(tmp_path, name):
    (tmp_path / "study/runs").mkdir(parents=True)
    (tmp_path / "study/runs/link").symlink_to(tmp_path)
    assert run_folder(tmp_path / "study", "lr0.5-seed1").name == "lr0.5-seed1"
    with pytest.raises(RecordError, match="which is not a folder of its own runs"):
        run_folder(tmp_path / "study", name)


def test_names_in_a_record_do_not_move_the_cursor(tmp_path):
    with Record.create(tmp_path, {"a\x1b[2J": "b\x9b\u202e"}):
        pass
    with pytest.raises(RecordError, match=r"another run \(a\\x1b\[2J: there") as raised:
        Record.create(tmp_path, {}, resume=True)
    assert str(raised.value).isprintable()
