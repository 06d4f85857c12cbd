"""``lossgeom mirror``: what dashboards hold of records afterwards."""

import json
import sqlite3

import pytest

import lossgeom as lg
from lossgeom.cli.mirror import main
from tests.recording.test_tables import study


@pytest.fixture
def runs(tmp_path):
    """A study of two runs, and a run alone."""
    study(tmp_path / "study")
    config = {"lr (max)": 0.1, "network": {"width": 4}}
    with lg.Record.create(tmp_path / "mine (2)", config) as record:
        for step, value in ((0, 3.0), (5, 1.0), (0, 2.0)):
            record.append({"step": step, "metric": "loss", "value": value, "seconds": 0.5})
    return ["study", "mine (2)"]


TOLD = """\
study/runs/lr0.1-seed10: 4 measurements to {to}
study/runs/lr1.0-seed10: 4 measurements to {to}
mine (2): 2 measurements to {to}
"""


def test_console(runs, command, tmp_path):
    done = command("mirror", "mine (2)", "--to", "console", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    told = "step 0: loss 2\nstep 5: loss 1\nmine (2): 2 measurements to console\n"
    assert done.stdout == told


def test_tensorboard(runs, command, tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    done = command("mirror", *runs, "--to", "tensorboard", "--verbose", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == TOLD.format(to="tensorboard")
    from tests.mirrors.test_tensorboard import scalars

    folder = tmp_path / "tensorboard"
    assert {each.name for each in folder.iterdir()} == {"lr0.1-seed10", "lr1.0-seed10", "mine_2"}
    assert scalars(folder / "lr1.0-seed10") == {"lossgeom/loss": [(0, 3.0), (4, 0.25)]}
    assert scalars(folder / "mine_2") == {
        "lossgeom/loss": [(0, 2.0), (5, 1.0)],
        "lossgeom/loss/seconds": [(0, 0.5), (5, 0.5)],
    }


def test_tensorboard_keeps_runs_apart_and_shows_the_last_ones(command, tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tests.mirrors.test_tensorboard import scalars

    names = ("a b", "a_b", "\N{GREEK SMALL LETTER ALPHA}", "\N{RIGHTWARDS ARROW}")
    for value, name in enumerate(names):
        with lg.Record.create(tmp_path / name) as record:
            record.append({"step": 3, "metric": "loss", "value": value})
    for _ in range(2):
        done = command("mirror", *names, "--to", "tensorboard", "--folder", "t", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
    found = [scalars(tmp_path / "t" / name) for name in ("a_b-1", "a_b-2", names[2], "-4")]
    assert found == [{"lossgeom/loss": [(3, value)]} for value in range(4)]


@pytest.mark.slow
def test_wandb(runs, command, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is not installed: make test-slow installs it")
    from tests.mirrors.test_wandb import history

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    done = command("mirror", "mine (2)", "--to", "wandb", "--folder", tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert history(tmp_path) == [
        {"_step": 0, "lossgeom/step": 0, "lossgeom/loss": 2},
        {"_step": 1, "lossgeom/step": 5, "lossgeom/loss": 1},
    ]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")  # SQLAlchemy's
def test_mlflow(runs, command, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed: make test-slow has it")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    done = command("mirror", *runs, "--to", "mlflow", "--project", "mine", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(TOLD.format(to="mlflow"))
    found = {run.info.run_name: run for run in mlflow.search_runs(
        experiment_names=["mine"], output_format="list")}  # fmt: skip
    mlflow.set_tracking_uri(before)
    assert set(found) == {"lr0.1-seed10", "lr1.0-seed10", "mine (2)"}
    assert found["mine (2)"].data.params == {"lr_max": "0.1", "network.width": "4"}
    assert found["mine (2)"].data.metrics == {"lossgeom/loss": 1.0}


@pytest.mark.slow
def test_trackio(runs, command, tmp_path, monkeypatch):
    trackio = pytest.importorskip("trackio", reason="trackio is not installed")
    for module in (trackio.utils, trackio.sqlite_storage):
        monkeypatch.setattr(module, "TRACKIO_DIR", tmp_path, raising=False)
    done = command("mirror", *runs, "--to", "trackio", "--project", "mine", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with sqlite3.connect(tmp_path / "mine.db") as store:
        found = store.execute("SELECT run_name, step, metrics FROM metrics").fetchall()
    of_mine = [(step, json.loads(metrics)) for run, step, metrics in found if run == "mine (2)"]
    assert of_mine == [(0, {"lossgeom/loss": 2.0}), (5, {"lossgeom/loss": 1.0})]
    assert {run for run, _, _ in found} == {"lr0.1-seed10", "lr1.0-seed10", "mine (2)"}


def test_what_is_no_record_is_left_out(runs, command, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    done = command("mirror", "checkpoints", "mine (2)", "--to", "console", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (
        0,
        "lossgeom: no records, and left out: checkpoints\n",
    )
    assert done.stdout.endswith("mine (2): 2 measurements to console\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "console"], "expected at least one folder: lossgeom mirror RUN"),
        (["a", "--to", "console"], "a holds no record"),
        (["a", "--to", "trackio", "--folder", "b"],
         "expected --folder with tensorboard or wandb, got it with trackio"),
        (["a", "--to", "comet"], "unknown choice 'comet'; expected console, mlflow"),
    ],
)  # fmt: skip
def test_what_it_refuses(command, tmp_path, arguments, message):
    done = command("mirror", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())


def test_a_pipe_that_is_closed_is_no_error_of_another_library(runs, tmp_path, monkeypatch):
    def closed(self, row):
        raise BrokenPipeError

    monkeypatch.setattr(lg.mirrors.Console, "write", closed)
    with pytest.raises(BrokenPipeError):
        main([str(tmp_path / "study"), "--to", "console"])


def test_what_another_library_refuses(runs, command, tmp_path, monkeypatch):
    def full(self, row):
        raise KeyError("no such run")

    monkeypatch.setattr(lg.mirrors.Console, "write", full)
    done = command("mirror", "study", "--to", "console", cwd=tmp_path)
    assert done.returncode == 1
    run = "study/runs/lr0.1-seed10"
    assert done.stderr == f"lossgeom: error: console did not take {run}: 'no such run'\n"
