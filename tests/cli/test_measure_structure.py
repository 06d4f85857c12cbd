"""``lossgeom measure --structure``: numbers of each layer in text, JSON and a page."""

import importlib
import json
import math

import pytest
import safetensors.torch

import lossgeom as lg
from tests.cli.test_measure import FEW, here, measured, numbers, plain_problem  # noqa: F401

COMMAND = ["net.py:model", "net.py:data", "--checkpoint", "trained.pt", "--dtype", "float64", *FEW]


@pytest.mark.usefixtures("pages_alone")
def test_structure_is_added_to_a_measurement_and_stays(here, capsys, monkeypatch):  # noqa: F811
    section = importlib.import_module("lossgeom.report.sections.structure")
    monkeypatch.setattr(section, "DRAWN", 1)
    numbers(capsys, *COMMAND, "--out", "a")
    before = (here / "a/rows.jsonl").read_bytes()
    printed = measured(capsys, *COMMAND, "--structure", "--out", "a")
    assert (here / "a/rows.jsonl").read_bytes().startswith(before)
    *parts, drawing = printed.err.splitlines()
    assert drawing == "lossgeom: drawing figures of 2 layers, some seconds each ..."
    assert parts == [
        f"lossgeom: measuring {i} of 14: structure of layer {layer}, 100 matrix-vector products "
        "at most" + parts[i - 13].partition("at most")[2]
        for i, layer in ((13, "0"), (14, "2"))
    ]
    first, last = lg.layer_structure(plain_problem(), 3)
    found = json.loads((here / "a/measurement.json").read_text())["layers"]
    for layer, expected in zip(found, (first, last), strict=True):
        assert (layer["layer"], layer["shape"]) == (expected.name, list(expected.shape))
        assert layer["overlap"] == pytest.approx(expected.overlap.tolist(), abs=1e-6)
        assert layer["baseline"] == pytest.approx(expected.baseline.tolist())
        assert layer["values"] == pytest.approx(expected.eigenpairs.values.tolist())
        assert layer["input_ratio"] == pytest.approx(expected.input_ratio)
        best = expected.errors.errors["best"].value
        assert layer["errors"]["best"]["value"] == pytest.approx(
            best, abs=1e-7
        )  # the root of rounding
    assert f"  2      2 x 6             {last.outliers.count} of 3, " in printed.out
    assert "  overlap of 1, 3  random  " in printed.out
    assert "  mu1/mu2        ratio of the two largest eigenvalues of E[x x^T]" in printed.out
    page = (here / "a/report.html").read_text()
    assert "<th>layer</th><th>best</th><th>decoupling</th>" in page
    assert "<dt>mu1/mu2</dt><dd>ratio of the two largest" in page
    assert "<h3>Layer 0</h3>" in page
    assert "Not drawn: 1 more layers, which are in the tables." in page
    assert (here / "a/figures/structure_0.pdf").exists()
    assert numbers(capsys, *COMMAND, "--out", "a")[0]["layers"] == found  # is not forgotten


def test_what_has_no_layers_is_measured_without_them(here, capsys):  # noqa: F811
    (here / "alone.py").write_text(
        "import torch\n\nclass Alone(torch.nn.Module):\n    def __init__(self):\n"
        "        super().__init__()\n        self.w = torch.nn.Parameter(torch.ones(3, 2))\n\n"
        "    def forward(self, x):\n        return x @ self.w\n\n"
        "model = Alone\ndata = lambda: [(torch.eye(3), torch.arange(3) % 2)]\n"
    )
    command = ["alone.py:model", "alone.py:data", *FEW, "--out", "b"]
    before, _ = numbers(capsys, *command)
    assert not any("structure" in note for note in before["problem"]["notes"])
    after, _ = numbers(capsys, *command, "--structure")
    (note,) = set(after["problem"]["notes"]) - set(before["problem"]["notes"])
    assert note.startswith("the structure of layers is not measured: expected a model with linear")
    assert "Alone is neither linear nor a convolution (model)" in note
    assert after["quantities"] == before["quantities"]


def test_structure_where_the_loss_is_nan(here, capsys):  # noqa: F811
    state = safetensors.torch.load_file("trained.safetensors")
    safetensors.torch.save_file({n: t * math.nan for n, t in state.items()}, "nan.safetensors")
    command = ["net.py:model", "net.py:data", "--checkpoint", "nan.safetensors", *FEW]
    found, _ = numbers(capsys, *command, "--structure")
    assert found["layers"] == []
    values = [q["value"] for q in found["quantities"] if q["matrix"] == "layers"]
    assert values == ["nan"]
