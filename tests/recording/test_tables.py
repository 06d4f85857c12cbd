"""Records as tables, and the files of them."""

import csv
import math
import sys

import pytest

import lossgeom as lg
from lossgeom.recording.folder import run_folder
from lossgeom.recording.for_report import ForReport
from lossgeom.recording.tables import tables, write_tables


def study(folder, name="of_lr", lrs=(0.1, 1.0)):
    """A run for each learning rate, of which the last has diverged, and one that is to come."""
    names = [f"lr{lr}-seed10" for lr in (*lrs, 9.0)]
    config = {"steps": 8, "network": {"widths": [4, 4], "data": "digits"}}
    with lg.Record.create(folder, {"study": name, **config}, kind="study") as record:
        record.describe(ForReport(planned_runs=tuple(names)))
        for lr, run in zip(lrs, names, strict=False):
            own = lg.Record.create(run_folder(folder, run), {"lr": lr, "seed": 10, "study": config})
            for step, value in ((4, 0.25), (0, 3.0), (8, math.inf if lr == lrs[-1] else 2.0)):
                own.append({"step": step, "metric": "loss", "value": value, "stderr": None})
            own.append({"step": 4, "metric": "gap", "value": math.nan, "status": "nonfinite"})
            own.append({"step": 3, "skipped": 1})
            own.update(left_out='diverged, "at" 8\n' if lr == lrs[-1] else None)
            own.finish("diverged" if lr == lrs[-1] else "finished")
    return record


def read(file):
    with file.open(newline="") as text:
        return list(csv.DictReader(text))


@pytest.mark.quick
def test_a_row_for_each_run_and_one_for_each_measurement(tmp_path):
    runs, rows = tables([study(tmp_path / "a")])
    first, second = runs
    assert first == {
        "run": "lr0.1-seed10", "study": "of_lr", "lr": 0.1, "seed": 10, "study.steps": 8,
        "study.network.widths": "[4, 4]", "study.network.data": "digits",
        "status": "finished", "left_out": None, "step": 8,
        "last.loss": 2.0, "last.gap": pytest.approx(math.nan, nan_ok=True),
    }  # fmt: skip
    assert (second["status"], second["last.loss"]) == ("diverged", math.inf)
    assert len(rows) == 8
    assert rows[0] == {
        "run": "lr0.1-seed10", "study": "of_lr", "step": 4, "metric": "loss", "value": 0.25,
        "stderr": None,
    }  # fmt: skip


def test_names_that_several_runs_have_and_settings_that_are_named_as_columns(tmp_path):
    here, there = tmp_path / "a/one", tmp_path / "b/one"
    for folder in (here, there):
        lg.Record.create(folder, {"status": "mine", "lr": math.inf}).finish()
    runs, rows = tables(map(lg.Record.open, (here, there)))
    assert [row["run"] for row in runs] == [str(here), str(there)]
    assert [row["config.status"] for row in runs] == ["mine", "mine"]
    assert runs[0]["status"] == "finished"
    assert (runs[0]["lr"], runs[0]["step"], runs[0]["study"]) == (math.inf, None, None)
    assert rows == []


def test_the_file_of_runs(tmp_path):
    record = study(tmp_path / "a")
    write_tables(record.path, [record])
    first, second = read(record.path / "runs.csv")
    assert first == {
        "run": "lr0.1-seed10", "study": "of_lr", "lr": "0.1", "seed": "10", "status": "finished",
        "left_out": "", "step": "8", "last.loss": "2.0", "last.gap": "nan",
    }  # fmt: skip
    assert (second["left_out"], second["last.loss"]) == ('diverged, "at" 8\n', "inf")
    both = [record, study(tmp_path / "b", "another", ("linear", 2.0))]
    write_tables(tmp_path, both)
    assert [row["study"] for row in read(tmp_path / "runs.csv")] == ["of_lr"] * 2 + ["another"] * 2
    assert read(tmp_path / "settings.csv")[:2] == [
        {"study": "of_lr", "setting": "steps", "value": "8"},
        {"study": "of_lr", "setting": "network.widths", "value": "[4, 4]"},
    ]
    assert not list(tmp_path.rglob("*.tmp"))


def test_data_frames(tmp_path):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    record = study(tmp_path / "a")
    for given in (record, record.path, [str(record.path)], [record.path / "runs/lr0.1-seed10"]):
        runs, rows = lg.frames(given)
        assert runs["last.loss"][0] == 2.0
        assert set(rows["metric"]) == {"loss", "gap"}
    runs, rows = lg.frames(record.path)
    assert runs.loc[runs["lr"] == 1.0, "last.loss"].item() == math.inf
    ends = rows[rows["metric"] == "loss"].merge(runs[["run", "lr"]], on="run")
    assert ends.groupby("lr")["value"].max().to_dict() == {0.1: 3.0, 1.0: math.inf}
    assert rows["stderr"].isna().all()
    assert runs.equals(pandas.DataFrame(tables([record])[0]))
    assert lg.frames([]).runs.empty


def test_parquet(tmp_path):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    both = [study(tmp_path / "a"), study(tmp_path / "b", "another", ("linear", True))]
    write_tables(tmp_path, both, parquet=True)
    runs, rows = (pandas.read_parquet(tmp_path / f"{name}.parquet") for name in ("runs", "rows"))
    assert list(runs["lr"]) == ["0.1", "1.0", "linear", "True"]
    assert runs["last.loss"][1] == math.inf
    assert list(runs["study.steps"]) == [8] * 4
    assert len(rows) == 16
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.quick
def test_without_pandas(tmp_path, monkeypatch):
    record = study(tmp_path / "a")
    monkeypatch.setitem(sys.modules, "pandas", None)
    told = r"pandas is needed here and comes with the extra 'tables': pip install 'lossgeom\[tables"
    with pytest.raises(ImportError, match=told):
        lg.frames(record)
    with pytest.raises(ImportError, match=told):
        write_tables(tmp_path, [record], parquet=True)


def test_the_frame_of_a_record_has_the_series_of_each_metric(tmp_path):
    record = lg.Record.create(tmp_path)
    for step, metric, value in [
        (4, "loss", 0.25), (0, "loss", 3.0), (4, "gap", math.nan), (4, "loss", math.inf),
    ]:  # fmt: skip
        record.append({"step": step, "metric": metric, "value": value, "lr": 0.1})
    record.append({"step": 3, "skipped": 1})
    long, wide = record.frame(), record.frame(wide=True)
    assert [*long] == ["step", "metric", "value", "lr"]
    assert [*zip(long["step"], long["metric"], strict=True)] == [
        (0, "loss"), (4, "loss"), (4, "gap"),
    ]  # fmt: skip
    assert long["value"].dtype == wide["gap"].dtype == float
    assert [*wide] == ["loss", "gap"]
    assert (wide.index.tolist(), wide["loss"].tolist()) == record.series("loss")
    assert wide["gap"].isna().all()


def test_the_frame_of_an_empty_record_is_empty(tmp_path):
    record = lg.Record.create(tmp_path)
    assert [*record.frame()] == ["step", "metric", "value"]
    assert record.frame(wide=True).empty
