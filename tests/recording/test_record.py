"""Records: manifest, rows and arrays as they are written and read."""

import json
import math
import subprocess

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lossgeom as lg
from lossgeom.recording.environment import _git_commit
from lossgeom.recording.record import Record
from lossgeom.recording.record_format import RecordError


def test_a_damaged_row_is_not_passed_over(tmp_path):
    Record.create(tmp_path).close()
    (tmp_path / "rows.jsonl").write_text('{"step": 0}\nrubbish\n{"step": 2}\n')
    with pytest.raises(RecordError, match=r"rows\.jsonl is damaged"):
        Record.open(tmp_path)


def test_rows_that_are_superseded_stand_no_longer(tmp_path):
    rows = [{"step": step, "metric": "loss", "value": float(step)} for step in (0, 2, 4)]
    with Record.create(tmp_path) as record:
        for row in (*rows, {"step": 2, "supersedes_lines": 3}, rows[1]):
            record.append(row)
        assert record.measured == {(0, "loss"), (2, "loss")}
    opened = Record.open(tmp_path)
    assert opened.rows() == [rows[0], {"step": 2, "supersedes_lines": 3}, rows[1]]
    assert opened.measured == record.measured
    again = Record.create(tmp_path, resume=True)
    again.append({"step": 0, "supersedes_lines": 5})
    assert again.rows() == [{"step": 0, "supersedes_lines": 5}]
    with pytest.raises(ValueError, match="supersedes_lines"):
        again.append({"step": 0, "supersedes_lines": "all"})


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


def test_manifest_tells_how_and_where(tmp_path):
    with Record.create(tmp_path, {"widths": (3, 4), "out": tmp_path, "big": math.inf}) as record:
        record.update(loss="cross_entropy")
        record.finish()
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["config"] == {"widths": [3, 4], "out": str(tmp_path), "big": "inf"}
    assert manifest["status"] == "finished"
    assert manifest["versions"]["torch"] == torch.__version__
    assert {"created", "ended", "git_commit", "machine", "schema"} <= manifest.keys()


def test_the_commit_of_the_working_folder(tmp_path, monkeypatch):
    def git(*arguments):
        name = ["-c", "user.name=a", "-c", "user.email=a@b"]
        done = subprocess.run(
            ["git", *name, *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    monkeypatch.chdir(tmp_path)
    assert _git_commit() is None
    git("init")
    (tmp_path / "a").write_text("a")
    git("add", "a")
    git("commit", "-m", "a")
    commit = git("rev-parse", "HEAD")
    assert _git_commit() == commit
    (tmp_path / "a").write_text("b")
    assert _git_commit() == f"{commit}+"
    monkeypatch.setenv("PATH", "")
    assert _git_commit() is None


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


def test_exported():
    assert lg.Record is Record
