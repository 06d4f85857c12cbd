"""The command line as a user meets it, in processes of its own."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib.metadata import requires
from pathlib import Path
from typing import get_args

import pytest

from lossgeom.cli import main
from lossgeom.cli.problem import LossName
from lossgeom.extras import LAB
from lossgeom.losses import as_loss

TINY = [
    "--steps", "40", "--every", "4", "--examples", "60", "--widths", "8",
    "--label-smoothing", "0", "0.3", "0.6", "--seeds", "2", "--workers", "2",
]  # fmt: skip


def lossgeom(*arguments, cwd, **options):
    return subprocess.run(
        [sys.executable, "-m", "lossgeom", *map(str, arguments)],
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
    assert "cifar" not in (folder / "out/report.html").read_text()
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
        [sys.executable, "-m", "lossgeom", *command],
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


def test_what_a_study_needs_is_there_before_it_runs(tmp_path, capsys, monkeypatch):
    needed = {re.split(r"[^a-z0-9-]", each)[0] for each in requires("lossgeom") if "'lab'" in each
              or '"lab"' in each}  # fmt: skip
    assert {name.replace("scikit-learn", "sklearn") for name in needed} == set(LAB)
    for module in LAB:
        with monkeypatch.context() as without:
            without.setitem(sys.modules, module, None)
            assert main(["run", "planar_quadratic", "--out", str(tmp_path / "out")]) == 2
        assert f"{module} is needed here and comes with the extra 'lab'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_terminals_and_folders_of_any_encoding(tmp_path):
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    os.mkdir(folder)
    Path(folder, "net.py").write_text(NET)
    few = ["--k", "1", "--probes", "2", "--steps", "3", "--matvecs", "4"]
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = lossgeom(
        "measure", f"{folder}/net.py:mlp", f"{folder}/net.py:data", *few, "--out", f"{folder}/a",
        cwd=tmp_path, env={**os.environ, **plain},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert " +- " in done.stdout
    assert done.stdout.endswith("caf\\udce9/a/report.html\n")


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
    command = [sys.executable, "-m", "lossgeom", "run", "progressive_sharpening", *TINY]
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
    command = [sys.executable, "-m", "lossgeom", "run", "progressive_sharpening", *slow]
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
        (["walk"], "unknown command 'walk'; expected doctor, list, measure, report or run"),
        (["Measure"], "unknown command 'Measure': did you mean measure? expected doctor,"),
        (["run"], "expected the name of a study"),
        (["run", "sharpness"], "unknown study 'sharpness'; expected gauss_newton_outliers, input"),
        (["run", "planar_quadratik"], "did you mean planar_quadratic? expected gauss_newton_out"),
        (["run", "progressive_sharpening", "--lr", "-1"], "expected 0 < small_lr < lr"),
        (["run", "progressive_sharpening", "--seeds", "0"], "--seeds and --workers of at least 1"),
        (["run", "progressive_sharpening", "--workers", "0"], "--seeds and --workers"),
        (["run", "progressive_sharpening", "--out", "/proc/x"], "/proc/x cannot be written"),
        (["run", "progressive_sharpening", "--out", "foreign"], "foreign holds other things"),
        (["run", "progressive_sharpening", "--out", "foreign/a.txt"], "is a file"),
        (["report", "foreign"], "foreign holds no record"),
        (["report"], "expected at least one folder"),
        (["report", "a", "b"], "expected a file for a report on several folders, such as --out"),
        (["doctor"], "expected a function that returns the model: MODEL [DATA], such as net.py:mo"),
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
    assert "out holds another study (lr: there 1.0, asked 0.7); choose another" in other.stderr


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
                "mlp",
                "digits",
                "JacobianNorm",
            ],
        ),
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


# doctor

NET = """
import sys
from functools import lru_cache

import torch
from torch import nn

import lossgeom

healthy = True

def mlp():
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))

def normed():
    return nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.Linear(5, 2))

def dropping():
    return nn.Sequential(nn.Linear(3, 5), nn.Dropout(), nn.Linear(5, 2))

class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(3, 5), nn.Linear(5, 2)

    def forward(self, x):
        import layers  # as late as this
        return self.head(layers.squash(self.body(x)))

@lru_cache
def data():
    return [(torch.randn(8, 3), torch.arange(8) % 2)]

def numbers():
    return [(torch.randn(8, 3), torch.randn(8, 2))]

def problem():
    return lossgeom.Problem(mlp(), nn.MSELoss(), numbers())

instance = mlp()

def wide(width, *rest, depth=2, scale):
    return mlp()

def nothing():
    pass

def classes():
    return Head

def batches_once():
    yield from data()

def examples():
    return torch.utils.data.TensorDataset(*data()[0])

def one_batch():
    return data()[0]

def no_batches():
    return []

def broken():
    raise KeyError("weights.pt")

def leaving():
    sys.exit(3)

def narrow():
    return nn.Linear(4, 2)

def frozen():
    return nn.Linear(3, 2).requires_grad_(False)

def failing():
    return lossgeom.Problem(narrow(), nn.MSELoss(), numbers())
"""
FILES = {
    "net.py": NET,
    "zoo/layers.py": "import torch\n\ndef squash(x):\n    return torch.sin(x)\n",
    "zoo/nets.py": NET,
    "zoo/absent.py": "import no_such_library\n",
    "zoo/unfinished.py": "def model(:\n",
    "zoo/script.py": "import sys\n\nsys.exit(2)\n",
    "zoo/empty.py": "from torch.nn import Identity\n",
}


@pytest.fixture
def user_code(tmp_path, monkeypatch):
    """A directory with the user's code, which is the current one."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    yield tmp_path
    assert sys.path == before
    for name in list(sys.modules):
        if name.split(".")[0] in ("net", "zoo", "layers"):
            del sys.modules[name]  # other directories have modules of the same names


def test_doctor_of_a_healthy_model(user_code):
    done = lossgeom("doctor", "net.py:mlp", "net.py:data", "--third", cwd=user_code)
    assert done.returncode == 0, done.stderr
    assert "can be trusted:\n  first: gradients\n" in done.stdout
    assert "nested forward" in done.stdout
    assert "not to be trusted" not in done.stdout
    assert done.stderr == ""


def test_doctor_names_the_layer_to_blame(user_code):
    command = ["doctor", "net.py:normed", "net.py:data"]
    done = lossgeom(*command, "--third", cwd=user_code)
    assert done.returncode == 1, done.stderr
    assert "LayerNorm (1), third:" in done.stdout
    assert "not to be trusted:\n  third:" in done.stdout
    assert lossgeom(*command, cwd=user_code).returncode == 0


def test_the_installed_command_finds_modules_of_the_current_directory(user_code):
    """Python does not put it on the path for a script, as it does for ``python -m``."""
    command = [Path(sys.executable).with_name("lossgeom"), "doctor", "zoo.nets:mlp", "net:data"]
    done = subprocess.run(command, cwd=user_code, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["net.py:problem"],
        ["zoo.nets:problem"],
        ["zoo/nets.py:Head", "zoo/nets.py:data"],  # which imports zoo/layers.py as layers
        ["zoo/nets.py:Head", "net.py:data", "--parameters", "head.*", "body.bias"],
        ["net.py:mlp", "net.py:numbers", "--loss", "squared_error"],
        ["net.py:dropping", "net.py:data", "--mode", "train", "--seed", "3"],
        ["{cwd}/net.py:mlp", "net:data"],
    ],
)
def test_doctor_options(user_code, capsys, arguments):
    arguments = [argument.format(cwd=user_code) for argument in arguments]
    assert main(["doctor", *arguments]) == 0, capsys.readouterr().err
    shown = capsys.readouterr().out
    assert "can be trusted:" in shown
    assert ("random numbers of the model fixed by seed 3" in shown) == ("--seed" in arguments)
    assert ("parameters held fixed: 1" in shown) == ("--parameters" in arguments)


def test_a_file_is_executed_once(user_code, capsys):
    (user_code / "net.py").write_text("print('executed')\n" + NET)
    assert main(["doctor", "net.py:mlp", f"{user_code}/net.py:data"]) == 0
    assert capsys.readouterr().out.count("executed") == 1


def test_files_of_similar_names_are_kept_apart(user_code, capsys):
    (user_code / "net_1.py").write_text(NET)
    (user_code / "net-1.py").write_text("def model():\n    return 1\n")
    assert main(["doctor", "net_1.py:mlp", "net_1.py:data"]) == 0
    assert main(["doctor", "net-1.py:model", "net_1.py:data"]) == 2
    assert "expected net-1.py:model to return" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["net.py"], "expected a function as package.module:function or path/to/file.py:function, "
         "got 'net.py'"),
        (["net.py:mlp", "data"], "file.py:function, got 'data'"),
        ([":mlp"], "got ':mlp'"),
        (["nets.py:mlp"], "expected a file at {cwd}/nets.py, found none; name the function as"),
        (["zoo.net:mlp"], "expected the module zoo.net to be installed or below {cwd}, found none "
         "named zoo.net; name the function as package.module:function or path/to/file.py:function"),
        (["zoology.nets:mlp"], "found none named zoology;"),
        (["zoo/nets:mlp"], "found none named zoo/nets; name the function as"),
        (["zoo.absent:mlp"], "expected the module zoo.absent to be imported, got "
         "ModuleNotFoundError: No module named 'no_such_library'; --debug shows where"),
        (["zoo/absent.py:mlp"], "expected zoo/absent.py to be imported, got ModuleNotFoundError"),
        (["zoo/unfinished.py:mlp"], "expected zoo/unfinished.py to be imported, got SyntaxError"),
        (["zoo.script:mlp"], "expected the module zoo.script to be imported, got SystemExit: 2"),
        (["net.py:mpl"], "expected a function named mpl in net.py, found Head, batches_once, "
         "broken, classes, "),
        (["zoo.empty:model"], "expected a function named model in zoo.empty, found no function"),
        (["net.py:healthy"], "expected net.py:healthy to be a function, got bool"),
        (["net.py:instance"], "expected net.py:instance to be a function, got Sequential; write a "
         "function that returns it"),
        (["net.py:wide"], "expected net.py:wide to be called without arguments, but it needs "
         "width, scale; give defaults, or write a function that calls it with them"),
        (["net.py:broken"], "expected net.py:broken to return when it is called without arguments, "
         "got KeyError: 'weights.pt'; --debug shows where"),
        (["net.py:mlp", "net.py:leaving"], "expected net.py:leaving to return when it is called "
         "without arguments, got SystemExit: 3"),
        (["net.py:nothing"], "expected net.py:nothing to return an nn.Module or a "
         "lossgeom.Problem, got None; return the model itself"),
        (["net.py:classes", "net.py:data"], "a lossgeom.Problem, got the class Head"),
        (["net.py:data", "net.py:mlp"], "a lossgeom.Problem, got an object of type list"),
        (["net.py:mlp"], "expected DATA, too, because net.py:mlp returns an object of type "
         "Sequential and no Problem; name a function that returns batches, such as net.py:data"),
        (["net.py:mlp", "net.py:nothing"], "expected net.py:nothing to return batches that can be "
         "iterated again and again, got None; return a list or a DataLoader"),
        (["net.py:mlp", "net.py:batches_once"], "again and again, got an object of type generator"),
        (["net.py:mlp", "net.py:examples"], "again and again, got an object of type TensorDataset"),
        (["net.py:problem", "net.py:data", "--loss", "squared_error", "--mode", "eval", "--seed",
          "0", "--parameters", "0.*"], "net.py:problem returns a Problem, which has data, loss and "
         "settings of its own; leave out DATA, --loss, --mode, --seed, --parameters"),
    ],
)  # fmt: skip
def test_doctor_says_what_was_named_wrongly(user_code, capsys, arguments, message):
    assert_one_clear_line(capsys, ["doctor", *arguments], message.format(cwd=user_code))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["net.py:frozen", "net.py:data"], "the model has no trainable parameters"),
        (["net.py:mlp", "net.py:data", "--parameters", "head.*"], "parameters='head.*' to match"),
        (["net.py:narrow", "net.py:data"], "expected net.py:narrow and net.py:data to give a loss "
         "that can be evaluated, got RuntimeError: mat1 and mat2 shapes cannot be multiplied"),
        (["net.py:failing"], "expected net.py:failing to give a loss that can be evaluated, got"),
        (["net.py:mlp", "net.py:one_batch"], "A single pair goes in a list, [(inputs, targets)]"),
        (["net.py:mlp", "net.py:no_batches"], "expected at least one batch, got none"),
        (["net.py:mlp", "net.py:data", "--loss", "squared_error"], "outputs and targets of one"),
        (["net.py:dropping", "net.py:data", "--mode", "train"], "the model drew random numbers"),
    ],
)  # fmt: skip
def test_doctor_says_what_does_not_go_together(user_code, unchecked, capsys, arguments, message):
    assert_one_clear_line(capsys, ["doctor", *arguments], message)


def assert_one_clear_line(capsys, arguments, message):
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert len(printed.err.splitlines()) == 1


def test_doctor_with_debug_shows_where_the_users_code_raised(user_code):
    done = lossgeom("doctor", "net.py:broken", "--debug", cwd=user_code)
    assert done.returncode == 1
    assert 'raise KeyError("weights.pt")' in done.stderr
    assert 'net.py", line' in done.stderr


def test_the_doctor_does_not_go_on_after_an_interruption(user_code, capsys):
    (user_code / "slow.py").write_text("def model():\n    raise KeyboardInterrupt\n")
    assert main(["doctor", "slow.py:model"]) == 130
    assert capsys.readouterr().err == "lossgeom: interrupted\n"


@pytest.mark.parametrize("flags", [["--loss", "hinge"], ["--mode", "test"], ["--no-such-flag"]])
def test_doctor_refuses_other_flags(user_code, flags):
    done = lossgeom("doctor", "net.py:mlp", "net.py:data", *flags, cwd=user_code)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_the_losses_that_can_be_named_are_those_of_the_library():
    for name in get_args(LossName):
        assert as_loss(name).name == name
    with pytest.raises(ValueError, match="expected loss to be one of") as raised:
        as_loss("")
    assert set(re.findall(r"'(\w+)'", str(raised.value))) == set(get_args(LossName))
