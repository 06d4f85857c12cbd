"""The claims on records of known answer, the matrix beside autograd, and a small real run."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import lossgeom as lg
from lossgeom import Record
from lossgeom.lab.studies import random_two_layer as study
from lossgeom.lab.studies._study import SeedRun
from lossgeom.lab.studies.random_two_layer.config import Config
from lossgeom.lab.studies.random_two_layer.network import random_network, row_space
from lossgeom.linalg import random_numbers
from tests.lab import claims_of_stages, varied

NARROW = {"value": 0.7, "predicted": 0.6, "earlier": 0.8, "overlap": 0.97, "one_output": 0.87,
          "other": 0.2}  # fmt: skip
MIDDLE = {**NARROW, "value": 0.3, "overlap": 0.99}
WIDE = {"value": 0.1, "predicted": 0.08, "earlier": 0.9, "overlap": 0.998, "one_output": 0.89,
        "other": 0.01}  # fmt: skip
GOOD = {"width-50": NARROW, "width-200": MIDDLE, "width-800": WIDE,
        "fewer_inputs": {"value": 0.993}}  # fmt: skip
BAD = {
    "width-50": {**NARROW, "value": 0.19, "earlier": 0.9},
    "width-200": {**MIDDLE, "overlap": 0.9},
    "width-800": {"value": 0.3, "predicted": 0.1, "earlier": 0.1, "overlap": 0.95,
                  "one_output": 0.995, "other": 0.995},
    "fewer_inputs": {"value": 0.96},
}  # fmt: skip


def claims_of(folder, numbers):
    return claims_of_stages(study.STUDY, Config(), folder, numbers)


def test_what_the_theorem_says(tmp_path):
    found = claims_of(tmp_path, varied(GOOD))
    assert all(claim.as_expected for claim in found)
    text = study.claims.summary(Config(), found)
    assert "6 of 6 statements are shown, and 4 of 4 negative controls fail" in text
    assert "from 50 to 800" in text.replace("From width", "from")
    by_id = {claim.id: claim for claim in found}
    assert by_id["gap_grows"].statistic == pytest.approx(-0.702, abs=1e-3)
    assert "0.7" in by_id["gap_grows"].note


def test_every_claim_can_come_out_against_it_and_every_control_be_shown(tmp_path):
    for claim in claims_of(tmp_path, varied(BAD)):
        assert claim.verdict == ("shown" if claim.control else "contradicted"), claim.id


@pytest.mark.quick
def test_the_output_hessian_is_the_hessian_in_a_bias():
    """Where the activation is piecewise linear, and a bias adds to what the layer puts out."""
    n, d, C, samples, seed = 7, 3, 4, 410, 0  # more than are in memory at once
    found = random_network(n, d, C, samples, seed)
    generator = random_numbers(seed)
    first, second, x = (
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in ((n, d), (C, n), (samples, d))
    )
    layers = nn.Sequential(nn.Linear(d, n), nn.ReLU(), nn.Linear(n, C, bias=False)).double()
    with torch.no_grad():
        layers[0].weight.copy_(first / d**0.5)
        layers[0].bias.zero_()
        layers[2].weight.copy_(second / n**0.5)
    problem = lg.Problem(layers, "cross_entropy", [(x, torch.zeros(samples, dtype=torch.long))])
    expected = lg.Hessian(problem.with_parameters("0.bias")).dense()
    torch.testing.assert_close(found.output_hessian(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.quick
def test_independent_masks():
    """The same sum with every mask in turn: E[D B D] over all of them, each as likely."""
    found = random_network(4, 3, 3, 50, 0)
    p, W = found.probabilities, found.second
    A = torch.stack([torch.diag(each) - torch.outer(each, each) for each in p]).mean(0)
    masks = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 4)
    expected = torch.stack([torch.diag(m) @ W.T @ A @ W @ torch.diag(m) for m in masks]).mean(0)
    torch.testing.assert_close(found.with_independent_masks(), expected)


@pytest.mark.quick
def test_row_space():
    W = random_network(9, 3, 4, 1, 0).second
    U = row_space(W, torch.ones(4))
    torch.testing.assert_close(U.T @ U, torch.eye(3, dtype=torch.float64))
    differences = (W[1:] - W[:1]).T  # W^T of vectors orthogonal to (1, 1, 1, 1)
    torch.testing.assert_close(U @ (U.T @ differences), differences)
    torch.testing.assert_close(
        (lambda V: V @ (V.T @ W[1:].T))(row_space(W, torch.eye(4)[0])), W[1:].T
    )


def test_a_run(tmp_path, unchecked):
    config = replace(Config(), widths=(5, 30), outputs=3, inputs=20, samples=300)
    run = SeedRun("run", 0, config, {})
    record = Record.create(tmp_path / "run", run.settings)
    study.run.run(run, record)
    rows = {row["metric"]: row for row in record.rows()}
    assert list(rows) == ["width-5", "width-30", "fewer_inputs", "ratios"]
    assert record.status == "finished"
    assert rows["width-30"]["overlap"] > 0.9 > rows["width-30"]["other"]
    assert 0 < rows["width-30"]["value"] == rows["ratios"]["value"] < 1
    drawn, _ = record.load_arrays("ratios")
    assert drawn["y"].shape == (2, 1)
    spectra, facts = record.load_arrays("spectra")
    assert set(facts["matrices"]) == {"width5", "width30"}
    assert spectra["width30_values"].shape == (6,)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"widths": (50,)}, r"two increasing widths or more; got widths = \(50,\)"),
        ({"widths": (50, 20)}, "two increasing widths or more"),
        ({"widths": (10, 20)}, "widths above the number of classes"),
        ({"outputs": 2}, "three classes or more; got outputs = 2"),
        ({"inputs": 3}, "4 inputs or more"),
        ({"samples": 0}, "one example or more"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        replace(Config(), **settings)
