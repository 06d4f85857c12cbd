"""The command line as a user meets it, in processes of its own."""

import os
import signal
import subprocess
import sys
import time

import pytest

from lossgeom.cli.bound import BOUNDS
from lossgeom.metrics import METRICS, STEP_METRICS


def lossgeom(*arguments, cwd, **options):
    return subprocess.run(
        [sys.executable, "-m", "lossgeom", *map(str, arguments)],
        cwd=cwd, capture_output=True, text=True, check=False, **options,
    )  # fmt: skip


def heed_interrupts():
    """A job that a shell put in the background is born deaf to them, and so are its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_interrupted(tmp_path):
    command = [sys.executable, "-m", "lossgeom", "run", "progressive_sharpening"]
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


@pytest.mark.parametrize("processes", [1, 2])
def test_interrupted_while_it_imports(tmp_path, processes):
    """The command itself, or its worker, which a terminal interrupts, too."""
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "lossgeom", "run", "planar_quadratic", "--out",
         "out", "--workers", "1"], cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        start_new_session=True, preexec_fn=heed_interrupts,
    )  # fmt: skip
    seen = []
    for line in process.stderr:
        seen.append(line)
        if sum(earlier.endswith(" torch._utils\n") for earlier in seen) == processes:
            break
    os.killpg(process.pid, signal.SIGINT)
    seen += process.communicate(timeout=60)[1].splitlines(keepends=True)
    messages = [line for line in seen if not line.startswith("import time:")]
    assert messages == ["lossgeom: interrupted; the same command goes on from here\n"]
    assert process.returncode == 130


def test_nothing_is_said_of_a_reader_who_leaves(tmp_path):
    for arguments in (["list"], ["run", "planar_quadratic", "--help"]):
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(
            [sys.executable, "-m", "lossgeom", *arguments],
            cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE, check=False,
        )  # fmt: skip
        os.close(writer)
        assert done.returncode == 141
        assert done.stderr == b""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["walk"],
            "unknown command 'walk'; expected bound, doctor, list, measure, mirror, report or run",
        ),
        (["Measure"], "unknown command 'Measure': did you mean measure? expected bound, "),
        (["run"], "expected the name of a study"),
        (["run", "sharpness"], "unknown study 'sharpness'; expected batch_norm, batch_size, edge"),
        (["run", "planar_quadratik"], "did you mean planar_quadratic? expected batch_norm, batch"),
        (["run", "progressive_sharpening", "--lr", "-1"], "expected 0 < small_lr < lr"),
        (["run", "progressive_sharpening", "--examples", "1797"], "expected at most 1796 examples"),
        (["run", "progressive_sharpening", "--seeds", "0"], "expected --seeds of at least 1, got"),
        (["run", "progressive_sharpening", "--workers", "0"], "expected --workers of at least 1"),
        (["run", "progressive_sharpening", "--out", "/proc/x"], "/proc/x cannot be written"),
        (["run", "progressive_sharpening", "--out", "foreign"], "foreign holds other things"),
        (["run", "progressive_sharpening", "--out", "foreign/a.txt"], "is a file"),
        (["report", "foreign"], "foreign holds no record"),
        (["report"], "expected at least one folder"),
        (["report", "a", "b"], "a holds no record: expected a file manifest.json in it"),
        (["doctor"], "expected a function that returns the model: MODEL [DATA], such as net.py:mo"),
    ],
)
def test_one_clear_line_and_nothing_written(command, tmp_path, arguments, message):
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/a.txt").write_text("mine")
    done = command(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.txt", "foreign"]


def test_metrics_of_problems_and_of_steps_and_bounds_are_listed(command, tmp_path):
    shown = command("list", cwd=tmp_path).stdout
    metrics, bounds = shown.split("metrics\n")[1].split("bounds\n")
    problems, steps = metrics.split("metrics of a step\n")
    assert [line.split()[0] for line in bounds.splitlines()] == list(BOUNDS)
    assert {metric.__name__ for metric in METRICS} == {n.split()[0] for n in problems.splitlines()}
    of_steps = {m.__name__ for m in STEP_METRICS}
    listed = {n.split()[0] for n in steps.splitlines()}
    both = {n.split()[0] for n in problems.splitlines() if n.endswith("Of a step, too.")}
    assert (listed | both, listed & both) == (of_steps, set())
    assert "Sharpness" in both


def test_debug_shows_the_traceback(command, tmp_path):
    with pytest.raises(ValueError, match="unknown study 'nothing'"):  # for Python to show
        command("run", "nothing", "--debug", cwd=tmp_path)


def test_flags_of_another_kind(command, tmp_path):
    for flags in (["--lr", "fast"], ["--no-such-flag", "1"]):
        done = command("run", "progressive_sharpening", *flags, cwd=tmp_path)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--help"],
            [
                "examples:",
                "lossgeom run progressive_sharpening",
                "goes on when",
                "doctor",
                "lossgeom measure net.py:model net.py:data --checkpoint trained.safetensors",
            ],
        ),
        (["run", "--help"], ["progressive_sharpening"]),
        (["run", "progressive_sharpening", "--help"], ["--label-smoothing", "--strict", "--out"]),
        (["report", "--help"], ["RUN", "--out"]),
        (
            ["doctor", "--help"],
            [
                "lossgeom doctor net.py:model net.py:data",
                "your own code",
                "--loss",
                "--mode",
                "--parameters GLOB",
                "--seed",
                "--third",
                "exit status",
            ],
        ),
        (
            ["list"],
            [
                "progressive_sharpening",
                "gauss_newton_outliers",
                "input_smoothness",
                "edge_of_stability",
                "sgd_stability",
                "smoothness_bounds",
                "pac_bayes",
                "pac-bayes",
                "random_two_layer",
                "layerwise_structure",
                "mlp",
                "lenet5",
                "digits",
                "mnist",
                "JacobianNorm",
            ],
        ),
    ],
)
def test_help(command, tmp_path, arguments, words):
    done = command(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for word in words:
        assert word in done.stdout
