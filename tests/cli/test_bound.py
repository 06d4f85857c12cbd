"""``lossgeom bound``: numbers, record, page, and what is said where there is no bound."""

import json
import re
import sys
from unittest import mock

import pytest
import torch
from torch import nn

import lossgeom as lg
from lossgeom.bounds import Epoch
from lossgeom.cli.terminal import epoch_display

NET = """
import torch
from torch import nn

import lossgeom

def model():
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))

def normed():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))

def fixed():
    torch.manual_seed(1)
    return model()

def data():
    g = torch.Generator().manual_seed(1)
    x = torch.randn(20, 3, generator=g)
    y = (x[:, 0] > 0).long()
    return [(x[:12], y[:12]), (x[12:], y[12:])]

def wishes():
    return [(x, nn.functional.one_hot(y).float()) for x, y in data()]

def problem():
    return lossgeom.Problem(model(), "cross_entropy", data())
"""

FEW = ["--epochs", "3", "--samples", "5", "--basis", "standard"]
TRAINED = ["net.py:model", "net.py:data", "--checkpoint", "trained.pt", *FEW]


def network(seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


@pytest.fixture
def here(tmp_path):
    """A directory with the user's code, initial weights and trained ones."""
    (tmp_path / "net.py").write_text(NET)
    torch.save(network(0).state_dict(), tmp_path / "init.pt")
    torch.save(network(5).state_dict(), tmp_path / "trained.pt")
    torch.save(nn.Linear(3, 2).state_dict(), tmp_path / "other.pt")
    normed = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    normed(torch.ones(2, 3))  # moves its running statistics
    torch.save(normed.state_dict(), tmp_path / "normed.pt")
    before = torch.get_rng_state()
    yield tmp_path
    torch.set_rng_state(before)  # the user's functions draw from it


def bounded(command, here, *arguments):
    drawing = [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]
    with mock.patch.dict(sys.modules, dict.fromkeys(["matplotlib", *drawing])):  # without a page
        done = command("bound", "pac-bayes", *arguments, "--json", cwd=here)
    assert done.returncode == 0, done.stderr
    assert re.search(r"no report: matplotlib[.\w]* is needed here", done.stderr)
    return json.loads(done.stdout)


def expected(prior, **settings):
    """The bound, without the command."""
    g = torch.Generator().manual_seed(1)
    x = torch.randn(20, 3, generator=g)
    y = (x[:, 0] > 0).long()
    problem = lg.Problem(network(5), "cross_entropy", [(x[:12], y[:12]), (x[12:], y[12:])])
    settings = {"epochs": 3, "samples": 5, "basis": "standard", **settings}
    return lg.pac_bayes(problem, prior=prior, **settings)


def test_a_bound_with_all_that_it_rests_on(command, here):
    done = command("bound", "pac-bayes", *TRAINED, "--prior", "init.pt", cwd=here)
    assert done.returncode == 0, done.stderr
    found = expected(network(0))
    assert done.stdout == f"{found}\nreport: runs/bound-model-trained/report.html\n"
    assert "epoch 2 of 3: loss " in done.stderr
    folder = here / "runs/bound-model-trained"
    written = json.loads((folder / "bound.json").read_text())
    assert written["bound"]["value"] == found.value
    assert written["bound"]["inputs"] == dict(found.bound.inputs)
    assert [each["status"] for each in written["bound"]["assumptions"]] == [
        each.status for each in found.assumptions
    ]
    assert written["config"]["prior"].startswith("init.pt, sha256 ")
    record = lg.Record.open(folder)
    assert record.series("kl") == ([1, 2, 3], [epoch.kl for epoch in found.history])
    page = (folder / "report.html").read_text()
    assert f"<strong>{found.value:.4g}</strong>" in page
    assert f"<strong>{found.bound.headline}</strong>" in page
    assert all(f"<td>{m}</td>" in page for m in found.bound.meanings.values() if "'" not in m)
    for word in (
        "A PAC-Bayes bound for net.py:model at trained.pt", "0.965", "delta&#39;", "lambda",
        "yours to vouch for", "cannot be checked by anybody", found.bound.source, "<svg", ">epoch<",
        "lossgeom bound pac-bayes net.py:model",
    ):  # fmt: skip
        assert word in page, word
    assert "<h2>Runs</h2>" not in page


def test_where_the_prior_is(command, here):
    """In a file, as MODEL draws it with a seed, or as it returned it before the checkpoint."""
    of_file = bounded(command, here, *TRAINED, "--prior", "init.pt", "--out", "a")
    of_seed = bounded(command, here, *TRAINED, "--prior", "0", "--out", "b")
    assert of_file["bound"] == of_seed["bound"]
    assert of_seed["config"]["prior"] == "seed 0"
    untrained = ["net.py:fixed", *TRAINED[1:]]
    of_model = bounded(command, here, *untrained, "--out", "c")
    assert of_model["bound"]["value"] == expected(network(1)).value
    drawn = bounded(command, here, *TRAINED, "--out", "e")
    assert drawn["bound"] == of_seed["bound"]
    assert drawn["config"]["prior"] == "MODEL after torch.manual_seed(0)"
    weights = [found["config"]["prior_weights"] for found in (drawn, of_seed, of_file, of_model)]
    assert weights[0] == weights[1] == weights[2] != weights[3]
    of_problem = bounded(
        command, here, "net.py:problem", *TRAINED[2:], "--prior", "init.pt", "--out", "d"
    )
    assert of_problem["bound"] == of_file["bound"]


def test_settings_reach_the_bound(command, here):
    flags = ["--lr", "0.01", "--delta", "0.05", "--delta-prime", "0.02", "--search-seed", "4"]
    flags += ["--b", "0.2"]
    found = bounded(command, here, *TRAINED, "--prior", "init.pt", *flags)
    settings = {"lr": 0.01, "delta": 0.05, "delta_prime": 0.02, "seed": 4, "b": 0.2}
    assert found["bound"]["value"] == expected(network(0), **settings).value
    assert found["bound"]["confidence"] == pytest.approx(0.93)
    split = bounded(
        command, here, *TRAINED, "--prior", "init.pt", "--prior-share", "0.5", "--out", "split"
    )
    assert split["bound"]["inputs"]["N"] == 8
    assert "the prior depends on data" in split["bound"]["assumptions"][0]["statement"]
    assert split["title"] == "A PAC-Bayes bound for net.py:model"
    assert "the weights of the model have no part" in split["bound"]["notes"][0]


def test_a_bound_that_is_there_is_shown_unless_data_changed(command, here, monkeypatch):
    first = bounded(command, here, *TRAINED, "--prior", "init.pt", "--out", "a")
    ended = lg.Record.open(here / "a").manifest["ended"]
    done = command("bound", "pac-bayes", *TRAINED, "--prior", "init.pt", "--out", "a", cwd=here)
    assert "a holds this bound already; to search again, give another --out" in done.stderr
    assert "epoch" not in done.stderr
    assert done.stdout == f"{expected(network(0))}\nreport: a/report.html\n"
    assert lg.Record.open(here / "a").manifest["ended"] == ended
    (here / "net.py").write_text(NET.replace("x[:, 0] > 0", "x[:, 0] > 0.5"))
    for name in [name for name in sys.modules if name.endswith("net%2Epy")]:
        monkeypatch.delitem(sys.modules, name)  # as in a process of its own
    other = bounded(command, here, *TRAINED, "--prior", "init.pt", "--out", "a")
    assert other["bound"]["inputs"] != first["bound"]["inputs"]
    assert len(lg.Record.open(here / "a").rows()) == 9 + 1
    done = command("bound", "pac-bayes", *TRAINED, "--prior", "0", "--out", "a", cwd=here)
    assert "a holds another bound (prior: there 'init.pt, sha256 " in done.stderr
    assert "choose another folder, with --out on a command line" in done.stderr
    for flag, value in (("--lr", "-1"), ("--samples", "1"), ("--epochs", "0")):
        done = command("bound", "pac-bayes", *TRAINED, "--out", "a", flag, value, cwd=here)
        assert f"expected {flag[2:]} " in done.stderr


def test_a_search_that_diverges_is_a_result(command, here):
    flags = ["--prior", "0", "--lr", "1e30", "--out", "a"]
    done = command("bound", "pac-bayes", *TRAINED, *flags, cwd=here)
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith("no bound: the search diverged in epoch ")
    assert lg.Record.open(here / "a").status == "diverged"
    written = json.loads((here / "a/bound.json").read_text())
    assert (written["status"], written["bound"]["value"]) == ("diverged", "nan")
    page = (here / "a/report.html").read_text()
    assert "<strong>no bound: the search diverged in epoch " in page
    assert "at most" not in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected a bound: lossgeom bound NAME, with all or pac-bayes"),
        (["pac-bays"], "unknown bound 'pac-bays': did you mean pac-bayes?"),
        (["pac-bayes"], "expected --checkpoint with the trained weights, or --prior with those"),
        (["pac-bayes", "net.py:model", "net.py:data"], "or both: MODEL alone returns one of them"),
        (["pac-bayes", *TRAINED, "--prior", "no.pt"], "found no file"),
        (["pac-bayes", *TRAINED, "--prior", "9" * 23], "or a SEED below 2**63, got 9999"),
        (["pac-bayes", *TRAINED, "--prior", "init"], "or with a seed, a whole number from 0 on"),
        (["pac-bayes", *TRAINED, "--prior", "-1"], "a whole number from 0 on; got '-1'"),
        (["pac-bayes", *TRAINED, "--prior", "other.pt"], "other.pt does not fit the model"),
        (["pac-bayes", *TRAINED, "--prior", "trained.pt"], "those of the model, in which DATA had"),
        (["pac-bayes", *TRAINED, "--delta", "2"], "expected delta > 0 and < 1, got 2.0"),
        (["pac-bayes", *TRAINED, "--lr", "1e39"], "expected lr > 0 and < 3e+38, got 1e+39"),
        (
            ["pac-bayes", "net.py:model", "net.py:wishes", *TRAINED[2:]],
            "expected one class for each example",
        ),
        (["pac-bayes", *TRAINED, "--out", "foreign", "--prior", "0"], "foreign holds other things"),
        (["pac-bayes", *TRAINED, "--examples", "21"], "take(21): the data has only 20 examples"),
        (
            ["pac-bayes", "net.py:normed", "net.py:data", "--checkpoint", "normed.pt", *FEW],
            "what the model holds fixed is not as in the prior",
        ),
    ],
)
def test_one_clear_line_and_nothing_written(command, here, arguments, message):
    (here / "foreign").mkdir()
    (here / "foreign/a.txt").write_text("mine")
    before = sorted(p for p in here.rglob("*") if "__pycache__" not in p.parts)
    done = command("bound", *arguments, cwd=here)
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]
    assert done.stdout == ""
    assert sorted(p for p in here.rglob("*") if "__pycache__" not in p.parts) == before


def test_help_and_list(command, here):
    shown = command("bound", "pac-bayes", "--help", cwd=here).stdout
    for word in (
        "lossgeom bound pac-bayes net.py:model net.py:data --checkpoint trained.safetensors",
        "your own code", "--prior FILE|SEED", "--basis", "recomputed", "--epochs", "--delta",
        "--prior-share", "--out", "--json", "what is bounded", "exit status",
    ):  # fmt: skip
        assert word in shown, word
    assert not any(f"--{refused} " in shown for refused in ("loss", "mode", "seed"))
    assert "below the current directory\n\nDATA returns" in shown
    assert (
        "  pac-bayes               Bound the error on new data of networks drawn"
        in command("bound", "--help", cwd=here).stdout
    )
    assert "bounds\n  all" in command("list", cwd=here).stdout


def test_a_record_that_is_damaged(command, here):
    bounded(command, here, *TRAINED, "--prior", "0", "--out", "a")
    manifest = here / "a/manifest.json"
    manifest.write_text(manifest.read_text().replace('"unverifiable"', '"certain"'))
    done = command("report", "a", cwd=here)
    assert "damaged: expected one of checked, declared, unverifiable at bound.assump" in done.stderr


@pytest.mark.quick
def test_progress_where_there_is_no_terminal(capsys):
    with epoch_display(25) as tell:
        for epoch in range(1, 26):
            tell(Epoch(epoch, 0.5, 0.25, epoch, 0.01))
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 13
    assert said[-1] == "lossgeom: epoch 25 of 25: loss 0.500 bits + complexity 0.250, KL 25"
