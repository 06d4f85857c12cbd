"""``lossgeom run``: a study from its first run to its report."""

import csv
import io
import json
import os
import pty
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from lossgeom.cli import main
from lossgeom.lab.studies import STUDIES
from lossgeom.lab.studies._network import NetworkSettings
from lossgeom.messages.extras import LAB
from lossgeom.recording.metric_figures import Trajectories
from tests.lab.test_run_study import Here

TINY = [
    "--steps", "12", "--every", "4", "--examples", "60", "--widths", "8",
    "--label-smoothing", "0", "0.3", "0.6", "--seeds", "1", "--workers", "2",
]  # fmt: skip


def untimed(folder: Path):
    """All rows of all runs, without what they took."""
    rows = {}
    for path in sorted(folder.glob("runs/*/rows.jsonl")):
        parsed = [json.loads(line) for line in path.read_text().splitlines()]
        rows[path.parent.name] = [{k: v for k, v in r.items() if k != "seconds"} for r in parsed]
    return rows


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study that has run once, with workers; in a process of its own, one is killed below."""
    folder, out, err = tmp_path_factory.mktemp("study"), io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(folder)
        patch.setattr("lossgeom.report.figures.as_file", lambda *_: b"Made by lossgeom")
        assert main(["run", "progressive_sharpening", *TINY, "--out", "out"]) == 0
    return folder, out.getvalue(), err.getvalue()


def test_run(finished):
    folder, out, err = finished
    assert "report: out/report.html" in out
    assert "6 of 6 runs are finished, about 0:00:00 left: " in err
    assert "\r" not in err + out
    claims = json.loads((folder / "out/claims.json").read_text())
    assert {"id", "statement", "source", "measured", "expected", "statistic", "interval",
            "verdict"} <= claims[0].keys()  # fmt: skip
    names = [path.name for path in (folder / "out/runs").iterdir()]
    assert len(names) == 6
    with (folder / "out/runs.csv").open(newline="") as table:
        assert {row["run"] for row in csv.DictReader(table)} == set(names)
    assert "cifar" not in (folder / "out/report.html").read_text()
    manifest = json.loads((folder / "out/manifest.json").read_text())
    assert manifest["status"] == "finished"
    assert manifest["command"].startswith("lossgeom run progressive_sharpening --steps 12")


def test_running_again_recomputes_nothing(command, finished):
    folder, *_ = finished
    files = sorted((folder / "out/runs").rglob("*.json*"))
    before = [(p, p.stat().st_mtime_ns) for p in files]
    again = command("run", "progressive_sharpening", *TINY, "--out", "out", cwd=folder)
    assert again.returncode == 0
    assert "6 of 6 runs are finished already" in again.stderr
    assert [(p, p.stat().st_mtime_ns) for p in files] == before


def read_terminal(descriptor):
    try:
        return os.read(descriptor, 4096)
    except OSError:  # how Linux says that the other side is closed
        return b""


def test_what_a_study_needs_is_there_before_it_runs(tmp_path, capsys, monkeypatch):
    for module in LAB:
        with monkeypatch.context() as without:
            without.setitem(sys.modules, module, None)
            assert main(["run", "planar_quadratic", "--out", str(tmp_path / "out")]) == 2
        assert f"{module} is needed here and comes with the extra 'lab'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_strict(command, finished):
    folder, *_ = finished
    claims = json.loads((folder / "out/claims.json").read_text())
    as_they_should_be = all(claim["as_expected"] for claim in claims)
    strict = command("run", "progressive_sharpening", *TINY, "--out", "out", "--strict", cwd=folder)
    assert strict.returncode == (0 if as_they_should_be else 1)
    assert not as_they_should_be  # twelve steps are too few to show anything


def test_killed_half_way_it_goes_on(command, finished, tmp_path):
    """Its worker ends with it, a report says what is missing, a terminal shows how it goes on.

    Before that, a worker alone is killed, which costs what it did since it last wrote.
    """
    folder, *_ = finished
    process, runs = started(tmp_path), tmp_path / "out/runs"
    wait_for(1, runs, process)
    for worker in workers_of(process) or []:
        os.kill(worker, signal.SIGKILL)
    over = wait_for(2, runs, process)
    workers = workers_of(process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 2 <= len(over) < 6
    before = {p: p.stat().st_mtime_ns for p in over}
    if workers is not None:
        assert workers
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and any(map(is_alive, workers)):
            time.sleep(0.05)
        assert not any(map(is_alive, workers))

    report = command("report", "out", cwd=tmp_path)
    assert report.returncode == 0, report.stderr
    page = (tmp_path / "out/report.html").read_text()
    assert "This is not complete" in page
    assert "not started" in page

    main, terminal = pty.openpty()
    process = started(
        tmp_path, stdout=terminal, stderr=terminal, env={**os.environ, "TERM": "xterm"}
    )
    os.close(terminal)
    shown = b""
    while chunk := read_terminal(main):
        shown += chunk
    assert process.wait() == 0, shown
    assert b"training" in shown
    assert b"6 of 6 runs" in shown
    assert b"0:00:0" in shown
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert untimed(tmp_path / "out") == untimed(folder / "out")


def wait_for(number, runs, process):
    """The manifests of the runs that are finished, once there are so many."""
    over, deadline = [], time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline and len(over) < number:
        time.sleep(0.01)
        over = [p for p in runs.glob("*/manifest.json") if '"finished"' in p.read_text()]
    return over


def started(folder, **options):
    """The study of this file, with one worker, in a process of its own."""
    options = {"stderr": subprocess.DEVNULL, **options}
    command = [sys.executable, "-m", "lossgeom", "run", "progressive_sharpening", *TINY]
    return subprocess.Popen([*command, "--workers", "1", "--out", "out"], cwd=folder, **options)


def workers_of(process):
    """The workers that a process has started, or None where that is not to be seen."""
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not path.exists():
        return None
    children = [int(pid) for pid in path.read_text().split()]
    return [pid for pid in children if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]


def is_alive(pid):
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def no_claims(config, seeds):
    raise KeyError("loss")


def test_all_studies_into_one_page(tmp_path, monkeypatch, capsys):
    """One that cannot run, be judged or be drawn does not keep another one from running."""
    study = STUDIES["progressive_sharpening"]
    network = NetworkSettings(examples=60, widths=(8,))
    tiny = partial(study.Config, steps=4, every=4, label_smoothing=(0, 0.3, 0.6), network=network)
    missing = replace(network, data="cifar10", folder=str(tmp_path / "none"))
    every = {
        "missing": replace(study, Config=partial(tiny, network=missing)),
        "unjudged": replace(study, Config=tiny, claims=no_claims),
        "good": replace(study, Config=tiny),
    }
    undrawn = replace(study, Config=tiny, figure=Trajectories(colour="nothing"))
    monkeypatch.setattr("lossgeom.lab.executors.Processes", lambda workers: Here())
    out = tmp_path / "all"
    for studies, failed in (
        ({**every, "undrawn": undrawn}, "missing, unjudged, undrawn"),
        (every, "missing, unjudged"),
    ):
        monkeypatch.setattr("lossgeom.lab.studies.STUDIES", studies)
        assert main(["run", "all", "--seeds", "1", "--out", str(out)]) == 1
        told = capsys.readouterr()
        assert f"the others are over: {failed}" in told.err.splitlines()[-1]
        assert "good: 0 of " in told.out
    assert "missing: expected data_batch_1.bin" in told.err
    page = (out / "report.html").read_text()
    assert "The claims could not be judged: KeyError: &#39;loss&#39;" in page
    with (out / "runs.csv").open(newline="") as table:
        assert len({row["run"] for row in csv.DictReader(table)}) == 12
    assert not (out / "missing").exists()


def test_another_configuration_in_the_same_folder(command, finished):
    folder, *_ = finished
    other = command(
        "run", "progressive_sharpening", *TINY, "--lr", "0.7", "--out", "out", cwd=folder
    )
    assert other.returncode == 2
    assert "out holds another study (lr: there 1.0, asked 0.7); choose another" in other.stderr


def test_presets(command, tmp_path):
    helps = [
        command("run", "progressive_sharpening", "--preset", preset, "--help", cwd=tmp_path)
        for preset in ("quick", "paper")
    ]
    assert all(done.returncode == 0 for done in helps)
    assert "(default: digits)" in helps[0].stdout
    assert "(default: cifar10)" in helps[1].stdout
    missing = command("run", "progressive_sharpening", "--preset", "paper", cwd=tmp_path)
    assert missing.returncode == 2
    assert "error: expected data_batch_1.bin, data_batch_2.bin" in missing.stderr.splitlines()[-1]
    assert not (tmp_path / "runs").exists()
