import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lossgeom as lg
from lossgeom import record as record_module
from lossgeom.files import write_atomically
from lossgeom.record import Record, RecordError

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
    for delay in (0.0, 0.01, 0.05, 0.1, 0.2):
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
    (tmp_path / ".manifest.json.123.tmp").write_text("{")
    (tmp_path / ".lock").touch()
    assert Record.create(tmp_path).rows() == []


def test_an_incomplete_last_row_is_dropped(tmp_path):
    with Record.create(tmp_path) as record:
        record.append({"step": 0, "metric": "loss", "value": 1.0})
    with (tmp_path / "rows.jsonl").open("a") as rows:
        rows.write('{"step": 1, "met')
    assert len(Record.open(tmp_path).rows()) == 1
    with Record.create(tmp_path, resume=True) as record:
        record.append({"step": 1, "metric": "loss", "value": 2.0})
    assert Record.open(tmp_path).series("loss") == ([0, 1], [1.0, 2.0])


def test_a_damaged_row_is_not_passed_over(tmp_path):
    Record.create(tmp_path).close()
    (tmp_path / "rows.jsonl").write_text('{"step": 0}\nrubbish\n{"step": 2}\n')
    with pytest.raises(RecordError, match=r"rows\.jsonl is damaged"):
        Record.open(tmp_path)


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


def snapshot(folder: Path):
    return {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.rglob("*") if p.is_file()}


def test_refuses_a_second_writer(tmp_path, monkeypatch):
    monkeypatch.setattr(record_module, "LOCK_SECONDS", 0.01)
    with Record.create(tmp_path):
        with pytest.raises(RecordError, match="being written by another process"):
            Record.create(tmp_path, resume=True)
        assert Record.open(tmp_path).rows() == []  # readers need no lock
    Record.create(tmp_path, resume=True).close()


def test_refuses_to_write_what_is_open_for_reading(tmp_path):
    Record.create(tmp_path).close()
    record = Record.open(tmp_path)
    for write in (
        lambda: record.append({"step": 0}),
        lambda: record.update(a=1),
        lambda: record.save_arrays("a", {}),
    ):
        with pytest.raises(RecordError, match="opened for reading, or is closed"):
            write()


def test_a_manifest_of_something_else(tmp_path):
    (tmp_path / "manifest.json").write_text('{"name": "web app"}')
    with pytest.raises(RecordError, match="is not a record of schema 1"):
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


def test_manifest_tells_how_and_where(tmp_path):
    with Record.create(tmp_path, {"widths": (3, 4), "out": tmp_path, "big": math.inf}) as record:
        record.update(loss="cross_entropy")
        record.finish()
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["config"] == {"widths": [3, 4], "out": str(tmp_path), "big": "inf"}
    assert manifest["status"] == "finished"
    assert manifest["versions"]["torch"] == torch.__version__
    assert {"created", "ended", "git_commit", "machine", "schema"} <= manifest.keys()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(), max_size=5))
def test_rows_come_back_as_they_went_in(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("record")
    with Record.create(folder) as record:
        for step, value in enumerate(values):
            record.append({"step": step, "metric": "x", "value": value})
    steps, back = Record.open(folder).series("x")
    assert steps == list(range(len(values)))
    assert [repr(v) for v in back] == [repr(v) for v in values]
    for line in (folder / "rows.jsonl").read_text().splitlines() if values else []:
        json.loads(line, parse_constant=lambda _: pytest.fail("not standard JSON"))


def test_a_with_block_finishes_unless_it_raises(tmp_path):
    with Record.create(tmp_path / "good") as record:
        pass
    assert record.status == Record.open(tmp_path / "good").status == "finished"
    with pytest.raises(KeyError), Record.create(tmp_path / "bad") as record:
        raise KeyError
    assert Record.open(tmp_path / "bad").status == "running"
    assert repr(record) == f"Record('{tmp_path / 'bad'}', status='running', rows=0)"


def test_config_that_json_cannot_hold(tmp_path):
    with pytest.raises(TypeError, match=r"expected what JSON can hold.*got a Tensor"):
        Record.create(tmp_path, {"w": torch.ones(2)})
    assert list(tmp_path.iterdir()) == []
    with Record.create(tmp_path, {"lr": np.float32(0.5)}) as record:
        assert record.config == {"lr": 0.5}


def test_arrays(tmp_path):
    with Record.create(tmp_path) as record:
        record.save_arrays("state", {"w": torch.arange(3.0)}, step=4)
        record.save_arrays("state", {"w": torch.arange(4.0)}, step=5)
        tensors, facts = record.load_arrays("state")
        assert tensors["w"].tolist() == [0, 1, 2, 3]
        assert facts == {"step": 5}
        assert record.load_arrays("other") is None
        with pytest.raises(ValueError, match="expected a name of letters"):
            record.save_arrays("../state", {})


def test_atomic_write_leaves_the_old_content_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def failing(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"


def test_exported():
    assert lg.Record is Record
