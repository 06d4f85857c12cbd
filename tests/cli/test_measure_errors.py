"""What ``lossgeom measure`` says where it does not measure."""

import argparse
import sys

import pytest
import safetensors.torch
import torch
from torch import nn

import lossgeom as lg
from lossgeom.cli import main
from tests.cli.test_measure import FEW, here, measured  # noqa: F401


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--k", "0"], "expected k of at least 1, got 0"),
        (["--probes", "1"], "expected probes of at least 2, got 1"),
        (["--steps", "0"], "expected steps of at least 1, got 0"),
        (["--matvecs", "1"], "expected matvecs of at least 2, got 1"),
        (["--max-matvecs", "0"], "expected max_matvecs of at least 1, got 0"),
        (["--probe-seed", "-1"], "expected seed of at least 0, got -1"),
        (["--tol", "1"], "expected 0 < tol < 1, got 1.0"),
        (["--lr", "0"], "expected --lr > 0, got 0.0"),
        (["--lr", "inf"], "expected --lr > 0, got inf"),
        (["--momentum", "0.9"], "expected --lr, too, with --momentum"),
        (["--lr", "1", "--momentum", "1"], "expected --momentum in [0, 1), got 1.0"),
        (["--batch-size", "4"], "expected --lr, too, with --batch-size"),
        (["--lr", "1", "--sampling", "reshuffling"], "expected --batch-size, too, with --sampling"),
        (["--lr", "1", "--batch-size", "21"], "expected a batch_size from 1 to 20, the number of"),
        (["--examples", "0"], "expected to take at least one example, got n=0"),
        (["--examples", "21"], "take(21): the data has only 20 examples"),
        (["--parameters", "head.*"], "'head.*' to match trainable parameters, it matches none"),
        (["--checkpoint", "no.pt"], "found no file"),
        (
            ["--checkpoint", "net.py"],
            "expected a checkpoint in .safetensors, .pt, .pth, .bin, .ckpt",
        ),
        (["--key", "model"], "expected --checkpoint, too, with --key"),
        (
            ["--checkpoint", "wide.pt", "--key", "net"],
            "at 'net', found one at top level; leave out",
        ),
        (["--checkpoint", "wide.pt"], "0.weight is (7, 3) there and (6, 3) here"),
        (["--checkpoint", "unsafe.pt"], "found argparse.Namespace, which is not read because"),
        (["--out", "net.py"], "net.py is a file; expected a folder"),
        (["--out", "foreign"], "foreign holds other things (a.txt)"),
    ],
)
def test_one_clear_line_and_nothing_written(here, unchecked, capsys, arguments, message):  # noqa: F811
    torch.save(nn.Sequential(nn.Linear(3, 7), nn.Tanh(), nn.Linear(7, 2)).state_dict(), "wide.pt")
    torch.save({"settings": argparse.Namespace()}, "unsafe.pt")
    (here / "foreign").mkdir()
    (here / "foreign/a.txt").write_text("mine")
    before = sorted(p for p in here.rglob("*") if "__pycache__" not in p.parts)
    printed = measured(capsys, "net.py:model", "net.py:data", *FEW, *arguments, status=2)
    assert message in printed.err
    assert len(printed.err.splitlines()) == 1
    assert printed.out == ""
    assert sorted(p for p in here.rglob("*") if "__pycache__" not in p.parts) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected a function that returns the model: MODEL [DATA], such as net.py:model"),
        (["net.py:problem", "--dtype", "float64"], "settings of its own; leave out --dtype"),
        (["net.py:Rounded", "net.py:data"], "the first derivative in Rounded"),
        (["net.py:normed", "net.py:data", "--mode", "train"], "the model drew random numbers"),
        (["net.py:model", "net.py:narrow_later"], "expected net.py:model and net.py:narrow_later "
         "to be measured, got RuntimeError: mat1 and mat2 shapes cannot be multiplied"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured(here, unchecked, capsys, arguments, message):  # noqa: F811
    printed = measured(capsys, *arguments, *FEW, "--out", "a", status=2)
    said = [line for line in printed.err.splitlines() if " measuring " not in line]
    assert len(said) == 1
    assert message in said[0]
    assert printed.out == ""


def test_another_configuration_in_the_same_folder(here, capsys):  # noqa: F811
    command = ["net.py:model", "net.py:data", *FEW, "--out", "a"]
    measured(capsys, *command)
    printed = measured(capsys, *command, "--tol", "0.01", status=2)
    assert "a holds another measurement (tol: there 0.001, asked 0.01); choose" in printed.err
    printed = measured(capsys, *command, "--checkpoint", "trained.pt", status=2)
    assert "(checkpoint: there None, asked 'trained.pt, sha256 " in printed.err
    command += ["--checkpoint", "changing.safetensors"]
    state = safetensors.torch.load_file("trained.safetensors")
    for place, expected in ((0, 0), (1, 2)):
        state["0.bias"][place] = 7
        safetensors.torch.save_file(state, "changing.safetensors")
        printed = measured(capsys, *command, "--out", "b", status=expected)
    assert (
        "b holds another measurement (checkpoint: there 'changing.safetensors, sha" in printed.err
    )


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("torch.manual_seed(0)", "torch.manual_seed(1)", "hash of the weights: there "),
        ("manual_seed(1)", "manual_seed(2)", "hash of the data: there "),
        ("nn.Tanh()", "nn.ReLU()", "(loss: there "),
    ],
)
def test_code_that_has_changed(here, capsys, monkeypatch, old, new, what):  # noqa: F811
    """Nothing of an earlier model or of other data goes into a record."""
    command = ["net.py:model", "net.py:data", *FEW, "--out", "a"]
    measured(capsys, *command)
    text = (here / "net.py").read_text()
    (here / "changed.py").write_text(text.replace(old, new))
    (here / "a/manifest.json").write_text(
        (here / "a/manifest.json").read_text().replace('"net.py:', '"changed.py:')
    )
    changed = [argument.replace("net.py", "changed.py") for argument in command]
    printed = measured(capsys, *changed, status=2)
    assert "a holds a measurement of something else" in printed.err
    assert what in printed.err
    assert "choose another folder. If model and data are meant to be the same" in printed.err


def test_interrupted(here, capsys):  # noqa: F811
    (here / "slow.py").write_text("def model():\n    raise KeyboardInterrupt\n")
    assert main(["measure", "slow.py:model"]) == 130
    assert capsys.readouterr().err == (
        "lossgeom: interrupted; the same command goes on from here\n"
    )


def test_more_eigenvalues_than_there_are(here, capsys):  # noqa: F811
    assert main(["measure", "net.py:model", "net.py:data", "--k", "500"]) == 2
    message = "expected --k of at most 38, the number of parameters, got 500"
    assert message in capsys.readouterr().err
    assert not (here / "runs").exists()


def test_help(here, capsys):  # noqa: F811
    with pytest.raises(SystemExit):
        main(["measure", "--help"])
    printed = capsys.readouterr().out
    for word in (
        "lossgeom measure net.py:model net.py:data --checkpoint trained.safetensors",
        "your own code", "--k", "--tol", "--max-matvecs", "--matvecs", "--probes", "--steps",
        "--probe-seed", "--examples", "--dtype", "--loss", "--mode", "--parameters GLOB", "--seed",
        "--lr", "--momentum", "--out", "--json", "what is measured", "exit status",
    ):  # fmt: skip
        assert word in printed, word


def test_without_the_libraries_of_the_page(here, capsys, monkeypatch):  # noqa: F811
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    printed = measured(capsys, "net.py:model", "net.py:data", *FEW, "--out", "a")
    assert "sharpness" in printed.out
    assert "no report: matplotlib is needed here and comes with the extra 'plot'" in printed.out
    assert "lossgeom report a writes it" in printed.out


# The library, without the command


def test_measure_checks_its_record(tmp_path):
    data = [(torch.ones(3, 2), torch.ones(3, 1))]
    problem = lg.Problem(nn.Linear(2, 1), "squared_error", data)
    with pytest.raises(lg.RecordError, match=r"is a run; expected a record that was made with Rec"):
        lg.measure(problem, lg.Record.create(tmp_path / "run"))
    few = lg.Geometry(k=1, matvecs=2, probes=2, steps=1)
    found = lg.measure(problem, lg.Record.create(tmp_path / "a", kind="measurement"), few)
    assert found["sharpness"].value == pytest.approx(3.0)
    again = lg.Record.create(tmp_path / "a", kind="measurement", resume=True)
    with pytest.raises(lg.RecordError, match=r"something else \(geometry: there \{'k': 1, "):
        lg.measure(problem, again, lg.Geometry(k=2))
