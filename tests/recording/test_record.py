import json
import math
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lossgeom as lg
from lossgeom.recording import crash_safety
from lossgeom.recording.crash_safety import write_atomically
from lossgeom.recording.folder import run_folder
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


def test_a_damaged_row_is_not_passed_over(tmp_path):
    Record.create(tmp_path).close()
    (tmp_path / "rows.jsonl").write_text('{"step": 0}\nrubbish\n{"step": 2}\n')
    with pytest.raises(RecordError, match=r"rows\.jsonl is damaged"):
        Record.open(tmp_path)


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


def snapshot(folder: Path):
    return {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.rglob("*") if p.is_file()}


def test_refuses_a_second_writer(tmp_path, monkeypatch):
    monkeypatch.setattr(crash_safety, "LOCK_SECONDS", 0.01)
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


def test_manifest_tells_how_and_where(tmp_path):
    with Record.create(tmp_path, {"widths": (3, 4), "out": tmp_path, "big": math.inf}) as record:
        record.update(loss="cross_entropy")
        record.finish()
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["config"] == {"widths": [3, 4], "out": str(tmp_path), "big": "inf"}
    assert manifest["status"] == "finished"
    assert manifest["versions"]["torch"] == torch.__version__
    assert {"created", "ended", "git_commit", "machine", "schema"} <= manifest.keys()


@pytest.mark.quick
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


@pytest.mark.quick
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


def finished(folder, steps=3):
    with Record.create(folder) as record:
        for step in range(steps):
            record.append({"step": step, "metric": "loss", "value": 1.0})
        record.save_arrays("w", {"w": torch.arange(3.0)}, step=2)
    return folder


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_a_finished_record_that_has_lost_rows(tmp_path, kept):
    rows = finished(tmp_path) / "rows.jsonl"
    rows.write_bytes(b"".join(rows.read_bytes().splitlines(keepends=True)[:kept]))
    for opened in (Record.open, lambda path: Record.create(path, resume=True)):
        with pytest.raises(RecordError, match=rf"holds {kept} rows, and 3 when the run had ended"):
            opened(tmp_path)


def test_a_finished_record_with_other_values(tmp_path):
    rows = finished(tmp_path) / "rows.jsonl"
    rows.write_text(rows.read_text().replace("1.0", "2.0"))
    with pytest.raises(RecordError, match=r"rows\.jsonl is damaged: it is not what it was when"):
        Record.open(tmp_path)


def test_a_record_whose_rows_are_gone(tmp_path):
    (finished(tmp_path) / "rows.jsonl").unlink()
    with pytest.raises(RecordError, match=r"rows\.jsonl cannot be read: No such file"):
        Record.open(tmp_path)


def test_a_finished_record_that_goes_on(tmp_path):
    with Record.create(finished(tmp_path), resume=True) as record:
        assert Record.open(tmp_path).status == "running"
        record.append({"step": 3, "metric": "loss", "value": 1.0})
    assert Record.open(tmp_path).series("loss")[0] == [0, 1, 2, 3]


def test_arrays_that_are_damaged_or_gone(tmp_path):
    path = finished(tmp_path) / "arrays/w.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"\x41")
    with pytest.raises(RecordError, match=r"w\.safetensors is damaged: its checksum is another"):
        Record.open(tmp_path).load_arrays("w")
    path.write_bytes(content[:-1])
    with pytest.raises(RecordError, match=r"w\.safetensors is damaged: "):
        Record.open(tmp_path).load_arrays("w")
    path.unlink()
    with pytest.raises(RecordError, match=r"w\.safetensors is missing, which was there when"):
        Record.open(tmp_path).load_arrays("w")


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


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"metric": "loss", "value": 1.0}, "expected a row with step, metric and value"),
        ({"step": 0.5, "metric": "loss", "value": 1.0}, "a whole number at step, found 0.5"),
        ({"step": 0, "metric": "loss", "value": None}, "a number at value, found None"),
        ({"step": 0, "metric": 3, "value": 1.0}, "expected text at metric, found 3"),
        ({"step": 0, "metric": "x", "value": 10**400}, "a number at value, found 1000"),
    ],
)
def test_rows_of_another_form_are_not_written(tmp_path, row, message):
    record = Record.create(tmp_path)
    with pytest.raises(ValueError, match=message):
        record.append(row)
    assert (tmp_path / "rows.jsonl").read_bytes() == b""


def test_facts_of_another_form_are_not_written(tmp_path):
    record = Record.create(tmp_path)
    with pytest.raises(ValueError, match="expected text at title, found 3, which is not what"):
        record.update(title=3)
    with pytest.raises(ValueError, match=r"whole number at planned_steps\[1\], found 'x'"):
        record.update(planned_steps=[1, "x"])
    deep = []
    for _ in range(100):
        deep = [deep]
    with pytest.raises(ValueError, match="nested too deeply"):
        record.update(mine=deep)
    record.update(mine={"anything": [1, None, "x"]})
    assert Record.open(tmp_path).manifest["mine"] == {"anything": [1, None, "x"]}


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


def test_exported():
    assert lg.Record is Record
