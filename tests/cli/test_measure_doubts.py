"""What ``lossgeom measure`` says of numbers that are not to be relied on."""

import math
import re

import pytest
import safetensors.torch
import torch

import lossgeom as lg
from tests.cli.test_measure import FEW, here, measured, numbers  # noqa: F401


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_diverged_checkpoint_is_a_result(here, capsys, suffix):  # noqa: F811
    state = safetensors.torch.load_file("trained.safetensors")
    state["0.weight"][0, 0] = math.nan
    torch.save(state, "nan.pt") if suffix == "pt" else safetensors.torch.save_file(
        state, "nan.safetensors"
    )
    command = ["net.py:model", "net.py:data", "--checkpoint", f"nan.{suffix}", *FEW]
    printed = measured(capsys, *command, "--lr", "1", "--out", "a")
    assert "There are values that are not finite: " in printed.out
    assert "nan" in printed.out
    assert lg.Record.open("a").status == "diverged"
    assert {row["status"] for row in lg.Record.open("a").rows()} == {"nonfinite"}
    assert "There are values that are not finite" in (here / "a/report.html").read_text()
    found, _ = numbers(capsys, *command, "--lr", "1", "--out", "a")
    assert {quantity["value"] for quantity in found["quantities"]} == {"nan"}


def test_what_has_not_converged_says_so(here, capsys):  # noqa: F811
    printed = measured(
        capsys, "net.py:model", "net.py:data", *FEW, "--max-matvecs", "3", "--out", "a"
    )
    assert re.search(r"sharpness.* not converged", printed.out)
    assert "?" in printed.out
    assert "--max-matvecs allows more products" in printed.out
    assert "--max-matvecs allows more products" in (here / "a/report.html").read_text()


def test_the_edge_beside_numbers_in_eval_mode(here, capsys):  # noqa: F811
    command = ("net.py:normed", "net.py:data", *FEW, "--lr", "0.5")
    printed = measured(capsys, *command, "--out", "unset")
    assert "Warning: measured in mode='eval', because no mode= was given; on the" in printed.out
    assert "; --mode train, or Problem(..., mode='train'), compares the loss" in printed.out
    page = (here / "unset/report.html").read_text()
    assert "Warning" in page
    assert "note: measured in" not in printed.out  # once is enough
    assert "Note: measured in" not in page
    assert "Warning" not in measured(capsys, *command, "--out", "eval", "--mode", "eval").out
