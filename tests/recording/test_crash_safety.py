"""What a killed process loses and leaves behind, and who may write meanwhile."""

import os
import signal
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from lossgeom.recording import crash_safety
from lossgeom.recording.crash_safety import write_atomically
from lossgeom.recording.record import Record
from lossgeom.recording.record_format import RecordError

WRITER = """
import sys
from lossgeom import Record
record = Record.create(sys.argv[1], {"lr": 0.5}, resume=True)
first = len(record.rows())
print("ready", flush=True)
for step in range(first, 10**6):
    record.append({"step": step, "metric": "loss", "value": step / 3, "text": "x" * 50})
    if step % 50 == 0:
        record.update(at=step)
    if step % 70 == 0:
        import torch
        record.save_arrays("checkpoint", {"w": torch.full((100,), float(step))}, step=step)
"""


def test_killed_at_any_instant_it_loses_at_most_the_last_row(tmp_path):
    folder, rows = tmp_path / "run", 0
    for delay in (0.0, 0.02, 0.15):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE
        )
        assert process.stdout.readline() == b"ready\n"
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        record = Record.open(folder)
        steps = [row["step"] for row in record.rows()]
        assert steps == list(range(len(steps)))
        assert len(steps) >= rows
        rows = len(steps)
        saved = record.load_arrays("checkpoint")
        if saved is not None:
            assert (saved[0]["w"] == saved[1]["step"]).all()
    assert rows > 100


def test_killed_before_its_first_manifest_it_can_start_again(tmp_path):
    (tmp_path / TEMPORARY.format("manifest.json")).write_text("{")
    (tmp_path / ".lock").touch()
    (tmp_path / "rows.jsonl").touch()
    assert Record.create(tmp_path).rows() == []
    assert not list(tmp_path.glob("*.tmp"))


TEMPORARY = ".{}.0123456789abcdef0123456789abcdef.tmp"


def test_what_killed_processes_left_is_removed(tmp_path):
    with Record.create(tmp_path) as record:
        record.save_arrays("w", {"w": torch.ones(1)})
    names = ("manifest.json", "claims.json", "w.safetensors")
    stale = [tmp_path / TEMPORARY.format(name) for name in names[:2]]
    stale.append(tmp_path / "arrays" / TEMPORARY.format(names[2]))
    others = [tmp_path / TEMPORARY.format("report.html"), tmp_path / ".manifest.json.mine.tmp"]
    for path in (*stale, *others):
        path.touch()
    Record.create(tmp_path, resume=True).close()
    assert not any(path.exists() for path in stale)
    assert all(path.exists() for path in others)  # which somebody else may be writing


def test_threads_that_write_one_file_do_not_meet(tmp_path):
    path = tmp_path / "file"
    contents = [bytes([i]) * 100_000 for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda content: write_atomically(path, content), contents * 4))
    assert path.read_bytes() in contents
    assert list(tmp_path.iterdir()) == [path]


def test_threads_that_append_to_one_record(tmp_path):
    with Record.create(tmp_path) as record, ThreadPoolExecutor(8) as pool:
        rows = [{"step": step, "metric": "x", "value": 1.0} for step in range(100)]
        list(pool.map(record.append, rows))
    assert Record.open(tmp_path).series("x")[0] == list(range(100))


def test_an_incomplete_last_row_is_dropped(tmp_path):
    record = Record.create(tmp_path)
    record.append({"step": 0, "metric": "loss", "value": 1.0})
    record.close()
    with (tmp_path / "rows.jsonl").open("a") as rows:
        rows.write('{"step": 1, "met')
    assert len(Record.open(tmp_path).rows()) == 1
    with Record.create(tmp_path, resume=True) as record:
        record.append({"step": 1, "metric": "loss", "value": 2.0})
    assert Record.open(tmp_path).series("loss") == ([0, 1], [1.0, 2.0])


def test_refuses_a_second_writer(tmp_path, monkeypatch):
    monkeypatch.setattr(crash_safety, "LOCK_SECONDS", 0.01)
    with Record.create(tmp_path):
        with pytest.raises(RecordError, match="being written by another process"):
            Record.create(tmp_path, resume=True)
        assert Record.open(tmp_path).rows() == []  # readers need no lock
    Record.create(tmp_path, resume=True).close()


def test_atomic_write_leaves_the_old_content_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def failing(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"


def test_content_is_on_the_disk_before_its_name(tmp_path, monkeypatch):
    """What only a power cut would show; so no other test waits for the disk."""
    done, replace = [], os.replace

    def synced(descriptor):
        found = os.fstat(descriptor)
        done.append("folder" if stat.S_ISDIR(found.st_mode) else found.st_size)

    def replaced(source, target):
        done.append("replaced")
        replace(source, target)

    record = Record.create(tmp_path)
    record.append({"step": 0, "metric": "loss", "value": 1.0})
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    write_atomically(tmp_path / "file", b"new")
    assert done == [len(b"new"), "replaced", "folder"]
    done.clear()
    record.finish()
    rows, manifest = (tmp_path / name for name in ("rows.jsonl", "manifest.json"))
    assert done == [rows.stat().st_size, manifest.stat().st_size, "replaced", "folder"]


def test_appending_to_what_is_gone_or_changed(tmp_path):
    row = {"step": 0, "metric": "loss", "value": 1.0}
    record = Record.create(tmp_path)
    record.append(row)
    (tmp_path / "rows.jsonl").write_text("")
    with pytest.raises(RecordError, match=r"rows\.jsonl has been changed by something else"):
        record.append(row)
    (tmp_path / "rows.jsonl").unlink()
    with pytest.raises(RecordError, match=r"rows\.jsonl is gone"):
        record.append(row)
    assert not (tmp_path / "rows.jsonl").exists()
