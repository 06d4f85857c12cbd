"""``lossgeom measure``: numbers, record, page, and what is said where it cannot be done."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from unittest import mock

import pytest
import safetensors.torch
import torch
from torch import nn

import lossgeom as lg
from lossgeom.cli import main
from lossgeom.cli.certificate import certificate

NET = """
import torch
from torch import nn

import lossgeom

def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2))

def other():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 6), nn.Sigmoid(), nn.Linear(6, 2))

def normed():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Dropout(), nn.Linear(6, 2))

def unseeded():
    return nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2))

class Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, g):
        return g

class Rounded(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(3, 2)

    def forward(self, x):
        return Straight.apply(self.body(x))

def data():
    g = torch.Generator().manual_seed(1)
    x, y = torch.randn(20, 3, generator=g), torch.randint(2, (20,), generator=g)
    return [(x[:12], y[:12]), (x[12:], y[12:])]

def narrow_later():
    first, (x, y) = data()
    return [first, (x[:, :2], y)]

def problem():
    return lossgeom.Problem(model(), "cross_entropy", data())
"""


FEW = ["--k", "3", "--probes", "2", "--steps", "5", "--matvecs", "20"]


QUANTITIES = [
    "loss", "gradient_norm", "sharpness", "hessian_smallest", "hessian_trace",
    "hessian_frobenius_norm", "hessian_stable_rank", "gauss_newton_largest", "gauss_newton_trace",
    "gauss_newton_frobenius_norm", "gauss_newton_stable_rank", "residual_largest",
    "residual_smallest", "residual_trace",
]  # fmt: skip


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A directory with the user's code and a checkpoint, which is the current one."""
    (tmp_path / "net.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        trained = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2))
    safetensors.torch.save_file(trained.state_dict(), "trained.safetensors")
    torch.save({"state_dict": trained.state_dict()}, "trained.pt")
    before = torch.get_rng_state()
    yield tmp_path
    torch.set_rng_state(before)  # the user's functions seed it


def measured(capsys, *arguments, status=0):
    assert main(["measure", *arguments]) == status
    return capsys.readouterr()


def numbers(capsys, *arguments, page=False):
    """What is measured, and written to a page where that is looked at."""
    with contextlib.nullcontext() if page else mock.patch.dict(sys.modules, {"matplotlib": None}):
        found = json.loads(measured(capsys, *arguments, "--json").out)
    return found, {quantity["name"]: quantity for quantity in found["quantities"]}


def plain_problem(**options):
    """The checkpoint's problem, made without the command."""
    model = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2))
    model.load_state_dict(safetensors.torch.load_file("trained.safetensors"))
    g = torch.Generator().manual_seed(1)
    x, y = torch.randn(20, 3, generator=g), torch.randint(2, (20,), generator=g)
    return lg.Problem(model.double(), "cross_entropy", [(x, y)], **options)


def assert_agrees(found, quantities, problem):
    H, G = lg.Hessian(problem).dense(), lg.GaussNewton(problem).dense()
    values = {
        name: torch.linalg.eigvalsh(A).flip(0) for name, A in (("h", H), ("g", G), ("r", H - G))
    }
    F = {"h": H.norm(), "g": G.norm()}
    expected = [
        problem.loss(), problem.gradient().norm(), values["h"][0], values["h"][-1], H.trace(),
        F["h"], (F["h"] / values["h"].abs().max()) ** 2, values["g"][0], G.trace(), F["g"],
        (F["g"] / values["g"][0]) ** 2, values["r"][0], values["r"][-1], (H - G).trace(),
    ]  # fmt: skip
    assert list(quantities) == QUANTITIES
    for name, value in zip(QUANTITIES, expected, strict=True):
        error = 4 * (quantities[name]["stderr"] or 0.0)
        assert quantities[name]["value"] == pytest.approx(float(value), rel=2e-3, abs=error), name
    for matrix, key in (("hessian", "h"), ("gauss_newton", "g")):
        ours = torch.tensor(found["eigenvalues"][matrix]["values"], dtype=torch.float64)
        assert torch.allclose(ours, values[key][: len(ours)], rtol=2e-3)


@pytest.mark.parametrize("checkpoint", ["trained.safetensors", "trained.pt"])
def test_numbers(here, capsys, checkpoint):
    command = ["net.py:model", "net.py:data", "--checkpoint", checkpoint, "--dtype", "float64"]
    found, quantities = numbers(capsys, *command, *FEW, "--steps", "12", page=True)
    assert_agrees(found, quantities, plain_problem())
    assert all(quantities[name]["stderr"] > 0 for name in ("hessian_trace", "residual_trace"))
    assert found["problem"]["parameters"] == 38
    assert (found["problem"]["examples"], found["problem"]["terms"]) == (20, 20)
    assert (here / "runs/measure-model-trained/report.html").exists()
    written = json.loads((here / "runs/measure-model-trained/measurement.json").read_text())
    assert written == found
    one_of_each = {quantity["part"]: quantity for quantity in found["quantities"]}.values()
    assert found["products"] == sum(quantity["matvecs"] for quantity in one_of_each)


def test_numbers_where_everything_is_exact(here, capsys):
    """As many products as there are parameters."""
    many = ["--matvecs", "40", "--probes", "4", "--steps", "10", "--dtype", "float64", "--k", "38"]
    command = ["net.py:model", "net.py:data", "--checkpoint", "trained.pt", *many]
    found, quantities = numbers(capsys, *command, page=True)
    assert_agrees(found, quantities, plain_problem())
    assert all(not quantity["stderr"] for quantity in quantities.values())
    assert len(found["eigenvalues"]["hessian"]["values"]) == 38
    assert (
        "They are of all eigenvalues"
        in (here / "runs/measure-model-trained/report.html").read_text()
    )


def test_a_whole_problem(here, capsys):
    found, _ = numbers(capsys, "net.py:problem", "--checkpoint", "trained.pt", *FEW)
    assert found["quantities"][0]["value"] == pytest.approx(plain_problem().loss(), rel=1e-5)
    untrained, _ = numbers(capsys, "net.py:problem", *FEW)
    assert untrained["quantities"][0]["value"] != found["quantities"][0]["value"]


def test_an_entry_of_a_checkpoint(here, capsys):
    state = safetensors.torch.load_file("trained.safetensors")
    torch.save({"teacher": state, "model": {n: 0 * t for n, t in state.items()}}, "two.ckpt")
    command = ["net.py:model", "net.py:data", "--checkpoint", "two.ckpt", "--key", "teacher", *FEW]
    found, quantities = numbers(capsys, *command)
    assert quantities["loss"]["value"] == pytest.approx(plain_problem().loss(), rel=1e-5)
    assert "checkpoint read from its entry 'teacher'" in found["problem"]["notes"]


def test_options(here, capsys):
    command = ["net.py:normed", "net.py:data", "--mode", "train", "--seed", "2", *FEW]
    found, _ = numbers(capsys, *command, "--examples", "15", "--parameters", "3.*")
    problem = found["problem"]
    assert (problem["parameters"], problem["examples"], problem["batches"]) == (14, 15, 2)
    assert (problem["mode"], problem["dtype"]) == ("train", "torch.float32")
    assert any("of 12, 3 examples" in note for note in problem["notes"])
    assert any("fixed by seed 2" in note for note in problem["notes"])
    assert found["geometry"] == {
        "k": 3, "tol": 1e-3, "max_matvecs": None, "matvecs": 20, "probes": 2, "steps": 5, "seed": 0,
    }  # fmt: skip
    assert found["command"].startswith("lossgeom measure net.py:normed net.py:data --mode train")


def test_seeds_of_probes(here, capsys):
    command = ["net.py:model", "net.py:data", *FEW]
    traces = [
        numbers(capsys, *command, "--probe-seed", seed, "--out", f"{i}")[1]["hessian_trace"][
            "value"
        ]
        for i, seed in enumerate(["0", "0", "1"])
    ]
    assert traces[0] == traces[1] != traces[2]


def test_text(here, capsys):
    command = ["net.py:model", "net.py:data", "--checkpoint", "trained.pt", *FEW]
    printed = measured(capsys, *command, "--lr", "0.5", "--momentum", "0.9")
    assert (
        "The geometry of net.py:model at trained.pt\n38 parameters, 20 examples in 2 "
        in printed.out
    )
    assert re.search(r"sharpness, the largest eigenvalue +[\d.]+ +residual \d.\de", printed.out)
    assert re.search(r"  trace +[-\d.]+ +± \d", printed.out)
    assert "note: checkpoint read from its entry 'state_dict'" in printed.out
    sharpness = lg.Record.open("runs/measure-model-trained").series("sharpness")[1][0]
    assert (
        f"Sharpness is {sharpness / 7.6:.3g} times 2 (1 + momentum)/lr = 7.6, up to which "
        "full-batch steps with learning " in printed.out
    )
    assert printed.out.endswith("report: runs/measure-model-trained/report.html\n")
    assert "lossgeom: measuring 1 of 12: loss\n" in printed.err
    assert re.search(r"6 of 12: spectral density of the Hessian, 30 matrix-vector products at "
                     r"most, about [\d.e-]+ s\n", printed.err)  # fmt: skip


def test_a_certificate_names_the_flag(here):
    told = certificate(plain_problem(), 0.3, 5, 0.0, None)["told"]
    assert any("draws reshuffled epochs, the sampling 'reshuffling'" in line for line in told)
    assert not any("sampling=" in line for line in told)


def test_whether_sgd_is_stable(here, capsys):
    """In words, as JSON, on the page and in the record."""
    command = ["net.py:model", "net.py:data", "--checkpoint", "trained.pt", "--dtype", "float64"]
    given = ["--lr", "0.3", "--batch-size", "5", "--sampling", "with-replacement"]
    command = [*command, *FEW, "--out", "a", *given, "--momentum", "0.5"]
    printed = measured(capsys, *command).out
    told = str(lg.certify_sgd(plain_problem(), 0.3, 5, 0.5, "with replacement")).splitlines()
    assert told[0] in printed
    assert "neither certified to be stable nor to be unstable" in told[0]
    assert "so this is no minimum, which the theory is about" in printed
    page = (here / "a/report.html").read_text()
    assert "batches of 5 of 20 examples with replacement" in page
    sgd = json.loads((here / "a/measurement.json").read_text())["stability"]["sgd"]
    assert (sgd["state"], sgd["batch_size"], sgd["minimum"]) == ("between", 5, "no minimum")
    assert sgd["ratio"] == pytest.approx(0.3 / sgd["threshold"])
    assert sgd["lower"] == sgd["upper"] == sgd["threshold"]
    assert lg.Record.open("a").manifest["stability"]["sgd"]["told"][0] == told[0]


def test_sgd_where_the_loss_is_nan(here, capsys):
    state = safetensors.torch.load_file("trained.safetensors")
    safetensors.torch.save_file({n: t * torch.nan for n, t in state.items()}, "nan.safetensors")
    command = ["net.py:model", "net.py:data", "--checkpoint", "nan.safetensors", *FEW]
    printed = measured(capsys, *command, "--lr", "0.3", "--batch-size", "5").out
    assert "SGD is not certified to be stable: the " in printed


def test_again_and_another_learning_rate(here, capsys):
    command = ["net.py:model", "net.py:data", *FEW, "--out", "a"]
    first = measured(capsys, *command)
    rows, manifest = (here / "a/rows.jsonl").read_bytes(), lg.Record.open("a").manifest
    again = measured(capsys, *command, "--lr", "2")
    assert again.err == ""
    assert (here / "a/rows.jsonl").read_bytes() == rows
    assert lg.Record.open("a").manifest["ended"] == manifest["ended"]
    assert lg.Record.open("a").status == "finished"
    assert "Sharpness is" in again.out
    assert "Sharpness is" not in first.out
    known = lg.Record.open("a").manifest
    assert "2/lr = 1, up to which" in measured(capsys, *command).out  # is not forgotten
    assert lg.Record.open("a").manifest["command"] == known["command"]
    (here / "a/report.html").unlink()
    assert main(["report", "a"]) == 0
    assert (
        "full-batch steps with learning rate 2 are stable" in (here / "a/report.html").read_text()
    )


def test_killed_it_goes_on(here, capsys, monkeypatch):
    command = ["net.py:model", "net.py:data", *FEW]
    whole = numbers(capsys, *command, "--out", "whole")[1]
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, *command, "--out", "a"], cwd=here, stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )  # fmt: skip
    deadline = time.monotonic() + 60
    rows = here / "a/rows.jsonl"
    while time.monotonic() < deadline and not (
        rows.exists() and b"hessian_trace" in rows.read_bytes()
    ):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = rows.read_bytes()
    assert 4 <= before.count(b"\n") < len(QUANTITIES)
    assert main(["report", "a"]) == 0
    page = (here / "a/report.html").read_text()
    assert "This is not complete" in page
    assert "not measured yet" in page
    capsys.readouterr()
    _, resumed = numbers(capsys, *command, "--out", "a")
    assert rows.read_bytes().startswith(before)
    assert {n: q["value"] for n, q in resumed.items()} == {n: q["value"] for n, q in whole.items()}


SLOW = """
import sys, time
from lossgeom.cli import main
from lossgeom.metrics.geometry import Part
measure = Part.measure
def slowly(self):
    time.sleep(0.3)
    return measure(self)
Part.measure = slowly
main(["measure", *sys.argv[1:]])
"""
