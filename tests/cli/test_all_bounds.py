"""``lossgeom bound all``: table, record, page, and what is computed again where more is given."""

import json
import sys

import pytest
import torch

import lossgeom as lg
from lossgeom.bounds import comparison
from lossgeom.cli import all_bounds

NET = """
import torch
from torch import nn

def mlp(seed, inputs=2):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(inputs, 4), nn.Tanh(), nn.Linear(4, 2))

def teacher():
    return mlp(0)

def generator():
    return nn.Linear(1, 2)

def wide():
    return nn.Linear(1, 3)

def model():
    net = mlp(0)
    net[0].bias.data += 0.001
    return net

def net():
    return mlp(1)

def data():
    x = torch.rand(60, 2, generator=torch.Generator().manual_seed(0))
    return [(x[:40], teacher()(x[:40]).detach()), (x[40:], teacher()(x[40:]).detach())]

def labelled():
    return [(x, (x[:, 0] > 0.5).long()) for x, _ in data()]

def latents():
    return torch.zeros(60, 1)

def labels_for_numbers():
    return [(x, (x[:, 0] > 0.5).long()) for x, _ in data()]

def normed():
    net = mlp(1)
    norm = nn.BatchNorm1d(2)
    norm.running_mean += 1
    return nn.Sequential(norm, net)

def three():
    return 3
"""
ALONE = ["net.py:net", "net.py:labelled", "--radius", "0.1", "--epochs", "2"]
TAUGHT = ["net.py:model", "net.py:data", "--loss", "squared_error"]

GENERATED = ["--latent", "cube:1", "--generator", "net.py:generator"]


@pytest.fixture
def here(tmp_path):
    (tmp_path / "net.py").write_text(NET)
    state = {"torch": torch}
    exec(NET, state)
    torch.save(state["mlp"](7).state_dict(), tmp_path / "init.pt")
    return tmp_path


def test_a_plain_classifier_and_what_more_adds(command, here, monkeypatch):
    done = command("bound", "all", *ALONE, cwd=here)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert " of them from certified numbers alone" in lines[0]
    assert lines[-1] == "report: runs/bounds-net/report.html"
    assert done.stderr.startswith("lossgeom: reading the model and the data\n")
    for flag in ("--latent cube:2", "--teacher FUNCTION", "--prior FILE|SEED"):
        assert any(line.startswith("      missing: needs") and flag in line for line in lines)
    assert any(line.startswith("  everywhere ") and " certified " in line for line in lines)
    assert "lossgeom: computing: Lipschitz constant (certified by lossgeom)" in done.stderr
    assert "PAC-Bayes" not in done.stderr
    written = json.loads((here / "runs/bounds-net/bound.json").read_text())
    assert written["headline"] == lines[0]
    assert {each["kind"] for each in written["bounds"]} >= {"certified", "missing"}
    page = (here / "runs/bounds-net/report.html").read_text()
    for word in (
        "Bounds for net.py:net", "Bounds beside what they bound", lines[0], "<svg", "missing",
        "Error under attack", "shares of the examples", "what this rests on",
        "lossgeom bound all net.py:net",
    ):  # fmt: skip
        assert word in page, word
    assert '<span class="option">(--batch-size</span> INT' in page
    assert "<h2>Bound</h2>" not in page

    monkeypatch.setitem(sys.modules, "matplotlib", None)  # without further pages
    more = command("bound", "all", *ALONE, "--prior", "init.pt", "--json", cwd=here)
    assert more.returncode == 0, more.stderr
    found = json.loads(more.stdout)["bounds"]
    assert found[:-1] == written["bounds"][:-1]
    assert (written["bounds"][-1]["kind"], found[-1]["kind"]) == ("missing", "certified")
    assert more.stderr.splitlines()[1] == "lossgeom: computing: Error on new examples (PAC-Bayes)"
    assert "epoch 2 of 2: KL" in more.stderr
    again = command("bound", "all", *ALONE, "--prior", "init.pt", "--json", cwd=here)
    assert json.loads(again.stdout)["bounds"] == found
    assert "computing" not in again.stderr
    flags = ["--prior", "init.pt", "--test", "net.py:labelled"]
    tested = command("bound", "all", *ALONE, *flags, cwd=here)
    assert "computing: Error on new examples (PAC-Bayes), on test data" in tested.stderr
    assert "epoch" not in tested.stderr
    assert "on the test data" in tested.stdout
    for more in (["--lr", "0.1", "--batch-size", "5"], []):
        assert "PAC-Bayes" not in command("bound", "all", *ALONE, *flags, *more, cwd=here).stderr
    other = command("bound", "all", *ALONE, "--epsilon", "0.1", cwd=here)
    assert "holds another bound (epsilon: there 0.05, asked 0.1)" in other.stderr
    wrong = command("bound", "all", *ALONE, "--epsilon", "2", cwd=here)  # before all else
    assert "expected epsilon > 0 and < 1, got 2.0" in wrong.stderr


def test_one_that_was_stopped_goes_on(command, here, monkeypatch):
    def stopped(given):
        raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    families = list(comparison.FAMILIES)[:2]
    monkeypatch.setattr(comparison, "FAMILIES", [families[0], comparison.Family("b", stopped)])
    command("bound", "all", *ALONE, cwd=here)
    record = lg.Record.open(here / "runs/bounds-net")
    assert record.status == "running"
    assert {each["family"] for each in record.manifest["compared"]} == {families[0].title}
    monkeypatch.setattr(comparison, "FAMILIES", families)
    done = command("bound", "all", *ALONE, cwd=here)
    assert done.returncode == 0
    assert f"computing: {families[0].title}" not in done.stderr
    assert f"computing: {families[1].title}" in done.stderr


def test_a_model_with_a_teacher(command, here, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    flags = ["--latent", "cube:2", "--teacher", "net.py:teacher", "--json"]
    done = command("bound", "all", *TAUGHT, *flags, cwd=here)
    assert done.returncode == 0, done.stderr
    found = [each for each in json.loads(done.stdout)["bounds"] if each["new"] and each["bound"]]
    assert len(found) >= 4
    assert all(each["bound"]["value"] > each["measured"] > 0 for each in found)
    assert all("over 10,000 new draws" in each["how"] for each in found if "form" in each["name"])
    assert json.loads(done.stdout)["config"]["dtype"] == "float64"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--latent", "cube"],
            "expected --latent as KIND:DIM or KIND:DIM:SIZE, such as cube",
        ),
        (["--latent", "ball:2"], "with cube, gaussian or sphere and a whole number of dimensions"),
        (["--latent", "cube:x"], "got 'cube:x'"),
        (["--latent", "cube:0"], "got 'cube:0'"),
        (["--latent", "gaussian:2"], "got 'gaussian:2'"),
        (["--latent", "cube:3"], "expected a distribution of inputs (2,), got one of 3 numbers"),
        (["--latent", "cube:2:0.1"], "expected examples from the distribution, but example "),
        (["--teacher", "net.py:three"], "expected net.py:three to return a Module, got a int"),
        (["--latents", "net.py:three"], "expected net.py:three to return a Tensor, got a int"),
        (["--generator", "net.py:generator"], "expected the distribution of what the generator"),
        (
            [*GENERATED[:3], "net.py:wide"],
            "expected a generator that makes inputs (2,) for the model, got (3,)",
        ),
        (
            [
                "--latent",
                "cube:1",
                "--generator",
                "net.py:generator",
                "--latents",
                "net.py:latents",
            ],
            "of which the generator makes the data",
        ),
        (["--prior", "no.pt"], "found no file"),
        (["--covering", "best"], "unknown covering 'best'"),
        (["--lr", "-0.1"], "expected lr > 0, got -0.1"),
        (["--batch-size", "61"], "expected batch_size <= 60, the number of examples, got 61"),
        (["--test", "net.py:labels_for_numbers"], "--test"),
        (["--radius", "-1"], "expected radius > 0, got -1.0"),
    ],
)
def test_one_clear_line(command, here, flags, message):
    done = command("bound", "all", *TAUGHT, *flags, cwd=here)
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]
    assert done.stdout == ""


def test_errors_are_those_of_the_command_line(command, here, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    state = {}
    exec(NET, state)
    norm = state["torch"].nn.BatchNorm1d(2)
    torch.save(torch.nn.Sequential(norm, state["mlp"](7)).state_dict(), here / "normed.pt")
    flags = ["net.py:normed", "net.py:labelled", "--prior", "normed.pt", "--epochs", "1"]
    done = command("bound", "all", *flags, cwd=here)
    (line,) = [line for line in done.stdout.splitlines() if "is not as in the prior" in line]
    assert "leave out --parameters, so" in line
    assert "parameters=" not in line
    assert "as a vector" not in line


def test_help(command, here):
    shown = command("bound", "all", "--help", cwd=here).stdout
    for word in (
        "lossgeom bound all net.py:model net.py:data --checkpoint trained.pt", "--latent cube:2",
        "KIND:DIM[:SIZE]", "--generator", "--teacher", "--latents", "--test", "--lr", "--batch-si",
        "--radius", "what is shown", "what is written", "exit status", "says what is missing",
    ):  # fmt: skip
        assert word in shown, word
    assert "uniform on the unit square, cube:2:3" in shown
    assert "  all                     Set every bound that can be computed" in (
        command("bound", "--help", cwd=here).stdout
    )
    assert set(all_bounds.SPELLED) >= {name for f in comparison.FAMILIES for name in f.needs}
