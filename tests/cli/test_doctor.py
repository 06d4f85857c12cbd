"""``lossgeom doctor``, and what is said of functions that were named wrongly."""

import re
import subprocess
import sys
import traceback
from pathlib import Path
from typing import get_args

import pytest

from lossgeom.cli import main
from lossgeom.cli.problem import LossName
from lossgeom.losses import as_loss

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


def test_doctor_of_a_healthy_model(command, user_code):
    done = command("doctor", "net.py:mlp", "net.py:data", "--third", cwd=user_code)
    assert done.returncode == 0, done.stderr
    assert "can be trusted:\n  first: gradients\n" in done.stdout
    assert "nested forward" in done.stdout
    assert "not to be trusted" not in done.stdout
    assert done.stderr == ""


def test_doctor_names_the_layer_to_blame(command, user_code):
    named = ["doctor", "net.py:normed", "net.py:data"]
    done = command(*named, "--third", cwd=user_code)
    assert done.returncode == 1, done.stderr
    assert "LayerNorm (1), third:" in done.stdout
    assert "not to be trusted:\n  third:" in done.stdout
    assert command(*named, cwd=user_code).returncode == 0


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


def test_doctor_with_debug_shows_where_the_users_code_raised(command, user_code):
    with pytest.raises(ValueError, match=r"weights\.pt") as raised:
        command("doctor", "net.py:broken", "--debug", cwd=user_code)
    shown = "".join(traceback.format_exception(raised.value))  # as Python does at the end
    assert 'raise KeyError("weights.pt")' in shown
    assert 'net.py", line' in shown


def test_the_doctor_does_not_go_on_after_an_interruption(user_code, capsys):
    (user_code / "slow.py").write_text("def model():\n    raise KeyboardInterrupt\n")
    assert main(["doctor", "slow.py:model"]) == 130
    assert capsys.readouterr().err == "lossgeom: interrupted\n"


@pytest.mark.parametrize("flags", [["--loss", "hinge"], ["--mode", "test"], ["--no-such-flag"]])
def test_doctor_refuses_other_flags(command, user_code, flags):
    done = command("doctor", "net.py:mlp", "net.py:data", *flags, cwd=user_code)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_the_losses_that_can_be_named_are_those_of_the_library():
    for name in get_args(LossName):
        assert as_loss(name).name == name
    with pytest.raises(ValueError, match="expected loss to be one of") as raised:
        as_loss("")
    assert set(re.findall(r"'(\w+)'", str(raised.value))) == set(get_args(LossName))
