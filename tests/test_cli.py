"""The command line as a user meets it, in processes of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TINY = [
    "--steps", "40", "--every", "4", "--examples", "60", "--widths", "8",
    "--label-smoothing", "0", "0.3", "0.6", "--seeds", "2", "--workers", "2",
]  # fmt: skip


def lossgeom(*arguments, cwd, **options):
    return subprocess.run(
        [sys.executable, "-m", "lossgeom.cli", *map(str, arguments)],
        cwd=cwd, capture_output=True, text=True, check=False, **options,
    )  # fmt: skip


def untimed(folder: Path):
    """All rows of all runs, without what they took."""
    rows = {}
    for path in sorted(folder.glob("runs/*/rows.jsonl")):
        parsed = [json.loads(line) for line in path.read_text().splitlines()]
        rows[path.parent.name] = [{k: v for k, v in r.items() if k != "seconds"} for r in parsed]
    return rows


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study that has run once."""
    folder = tmp_path_factory.mktemp("study")
    done = lossgeom("run", "progressive_sharpening", *TINY, "--out", "out", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, done


def test_run(finished):
    folder, done = finished
    assert "report: out/report.html" in done.stdout
    assert "12 of 12 runs are finished, about 0 s left: " in done.stderr
    assert "\r" not in done.stderr + done.stdout
    claims = json.loads((folder / "out/claims.json").read_text())
    assert {"id", "statement", "source", "measured", "expected", "statistic", "interval",
            "verdict"} <= claims[0].keys()  # fmt: skip
    assert len(list((folder / "out/runs").iterdir())) == 12
    manifest = json.loads((folder / "out/manifest.json").read_text())
    assert manifest["status"] == "finished"
    assert manifest["command"].startswith("lossgeom run progressive_sharpening --steps 40")


def test_running_again_recomputes_nothing(finished):
    folder, _ = finished
    files = sorted((folder / "out/runs").rglob("*.json*"))
    before = [(p, p.stat().st_mtime_ns) for p in files]
    again = lossgeom("run", "progressive_sharpening", *TINY, "--out", "out", cwd=folder)
    assert again.returncode == 0
    assert "12 of 12 runs are finished already" in again.stderr
    assert [(p, p.stat().st_mtime_ns) for p in files] == before


def test_progress_bar_on_a_terminal(finished):
    folder, _ = finished
    import pty

    main, terminal = pty.openpty()
    command = ["run", "progressive_sharpening", *TINY, "--seeds", "3", "--out", "terminal"]
    process = subprocess.Popen(
        [sys.executable, "-m", "lossgeom.cli", *command],
        cwd=folder, stdout=terminal, stderr=terminal, env={**os.environ, "TERM": "xterm"},
    )  # fmt: skip
    os.close(terminal)
    shown = b""
    while chunk := read_terminal(main):
        shown += chunk
    assert process.wait() == 0, shown
    assert b"training" in shown
    assert b"18 of 18 runs" in shown
    assert b"0:00:0" in shown


def read_terminal(descriptor):
    try:
        return os.read(descriptor, 4096)
    except OSError:  # how Linux says that the other side is closed
        return b""


def test_strict(finished):
    folder, _ = finished
    claims = json.loads((folder / "out/claims.json").read_text())
    as_they_should_be = all(claim["as_expected"] for claim in claims)
    strict = lossgeom(
        "run", "progressive_sharpening", *TINY, "--out", "out", "--strict", cwd=folder
    )
    assert strict.returncode == (0 if as_they_should_be else 1)
    assert not as_they_should_be  # forty steps are too few to show anything


def test_killed_half_way_it_goes_on(finished, tmp_path):
    folder, _ = finished
    command = [sys.executable, "-m", "lossgeom.cli", "run", "progressive_sharpening", *TINY]
    process = subprocess.Popen([*command, "--out", "out"], cwd=tmp_path, stderr=subprocess.DEVNULL)
    runs = tmp_path / "out/runs"
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        over = [p for p in runs.glob("*/manifest.json") if '"finished"' in p.read_text()]
        if len(over) >= 3:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 3 <= len(over) < 12
    before = {p: p.stat().st_mtime_ns for p in over}

    report = lossgeom("report", "out", cwd=tmp_path)
    assert report.returncode == 0, report.stderr
    page = (tmp_path / "out/report.html").read_text()
    assert "This is not complete" in page
    assert "not started" in page

    again = lossgeom("run", "progressive_sharpening", *TINY, "--out", "out", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert untimed(tmp_path / "out") == untimed(folder / "out")


def test_workers_end_with_their_parent(tmp_path):
    slow = ["--steps", "100000", "--workers", "1", "--seeds", "1", "--out", "out"]
    command = [sys.executable, "-m", "lossgeom.cli", "run", "progressive_sharpening", *slow]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
    while not list(tmp_path.glob("out/runs/*/rows.jsonl")):
        time.sleep(0.05)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        process.kill()
        pytest.skip("needs /proc")
    workers = [int(pid) for pid in children.read_text().split()]
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and any(map(is_alive, workers)):
        time.sleep(0.05)
    assert workers
    assert not any(map(is_alive, workers))


def is_alive(pid):
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def heed_interrupts():
    """A job that a shell put in the background is born deaf to them, and so are its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_interrupted(tmp_path):
    command = [sys.executable, "-m", "lossgeom.cli", "run", "progressive_sharpening"]
    process = subprocess.Popen(
        [*command, "--out", "out", "--workers", "1"], cwd=tmp_path, stderr=subprocess.PIPE,
        text=True, start_new_session=True, preexec_fn=heed_interrupts,
    )  # fmt: skip
    while not list(tmp_path.glob("out/runs/*/rows.jsonl")):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.strip() == "lossgeom: interrupted; the same command goes on from here"
    assert len(list(tmp_path.glob("out/runs/*"))) <= 3  # what had not begun did not begin


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["walk"], "unknown command 'walk'; expected one of list, run, report"),
        (["run"], "expected the name of a study"),
        (["run", "sharpening"], "unknown study 'sharpening'; expected one of progressive_sharp"),
        (["run", "progressive_sharpening", "--lr", "-1"], "expected 0 < small_lr < lr"),
        (["run", "progressive_sharpening", "--seeds", "0"], "--seeds and --workers of at least 1"),
        (["run", "progressive_sharpening", "--workers", "0"], "--seeds and --workers"),
        (["run", "progressive_sharpening", "--out", "/proc/x"], "/proc/x cannot be written"),
        (["run", "progressive_sharpening", "--out", "foreign"], "foreign holds other things"),
        (["run", "progressive_sharpening", "--out", "foreign/a.txt"], "is a file"),
        (["report", "foreign"], "foreign holds no record"),
        (["report"], "expected at least one folder"),
    ],
)
def test_one_clear_line_and_nothing_written(tmp_path, arguments, message):
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/a.txt").write_text("mine")
    done = lossgeom(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.txt", "foreign"]


def test_another_configuration_in_the_same_folder(finished):
    folder, _ = finished
    other = lossgeom(
        "run", "progressive_sharpening", *TINY, "--lr", "0.7", "--out", "out", cwd=folder
    )
    assert other.returncode == 2
    assert "out holds another study (lr: there 0.5, asked 0.7); choose another" in other.stderr


def test_debug_shows_the_traceback(tmp_path):
    done = lossgeom("run", "nothing", "--debug", cwd=tmp_path)
    assert "Traceback" in done.stderr


def test_flags_of_another_kind(tmp_path):
    for flags in (["--lr", "fast"], ["--no-such-flag", "1"]):
        done = lossgeom("run", "progressive_sharpening", *flags, cwd=tmp_path)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--help"], ["examples:", "lossgeom run progressive_sharpening", "goes on when"]),
        (["run", "--help"], ["progressive_sharpening"]),
        (["run", "progressive_sharpening", "--help"], ["--label-smoothing", "--strict", "--out"]),
        (["report", "--help"], ["RUN", "--out"]),
        (["list"], ["progressive_sharpening", "mlp", "digits", "JacobianNorm"]),
    ],
)
def test_help(tmp_path, arguments, words):
    done = lossgeom(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for word in words:
        assert word in done.stdout


def test_presets(tmp_path):
    helps = [
        lossgeom("run", "progressive_sharpening", "--preset", preset, "--help", cwd=tmp_path)
        for preset in ("quick", "paper")
    ]
    assert all(done.returncode == 0 for done in helps)
    assert "(default: digits)" in helps[0].stdout
    assert "(default: cifar10)" in helps[1].stdout
    missing = lossgeom("run", "progressive_sharpening", "--preset", "paper", cwd=tmp_path)
    assert missing.returncode == 1
    assert len(missing.stderr.splitlines()) == 1
    assert "failed: expected data_batch_*.bin and test_batch.bin" in missing.stderr
