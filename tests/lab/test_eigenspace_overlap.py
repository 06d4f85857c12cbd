"""The claims on records of known answer, and a small real run."""

import math
from dataclasses import replace

import pytest
import torch

import lossgeom as lg
from lossgeom import Record
from lossgeom.lab.models import mlp
from lossgeom.lab.studies import eigenspace_overlap as study
from lossgeom.lab.studies._network import NetworkSettings
from lossgeom.lab.studies._study import SeedRun
from lossgeom.lab.studies.eigenspace_overlap.config import Config
from lossgeom.linalg import eigenspace_overlap
from tests.lab import claims_of_stages, varied

NARROW = {"value": 0.8, "fall": 1.45, "multiple": 60.0, "random": 1.1, "along": 0.93, "off": 0.08,
          "accuracy": 0.93}  # fmt: skip
GOOD = {
    "narrow-6": {**NARROW, "peak": 5.0, "live": 5.2},
    "narrow-8": {**NARROW, "peak": 7.0, "live": 6.5},
    "wide": {**NARROW, "value": 0.35, "peak": 8.0, "live": 8.3, "multiple": 55.0},
    "centred": {"value": 0.4, "peak": 12.0, "fall": 1.0, "multiple": 13.0, "along": 0.02,
                "accuracy": 0.93},
}  # fmt: skip
AGAINST = {"value": 0.1, "fall": 1.0, "multiple": 2.0, "random": 30.0, "along": 0.1, "off": 0.5,
           "live": 2.0, "accuracy": 0.9}  # fmt: skip
BAD = {
    "narrow-6": {**AGAINST, "peak": 12.0},
    "narrow-8": {**AGAINST, "peak": 3.9, "live": 8.0},
    "wide": {**AGAINST, "peak": 20.0},
    "centred": {**NARROW, "peak": 5.0},
}


def claims_of(folder, numbers):
    """Of places of peaks, which do not vary a little."""
    for row in (row for each in numbers for row in each.values() if "peak" in row):
        row["peak"] = round(row["peak"], 1)
    return claims_of_stages(study.STUDY, Config(), folder, numbers)


def test_what_the_paper_says(tmp_path):
    found = claims_of(tmp_path, varied(GOOD))
    assert all(claim.as_expected for claim in found)
    text = study.claims.summary(Config(), found)
    assert "13 of 13 statements are shown, and 3 of 3 negative controls fail" in text
    assert "60 (8 outputs in the first layer), 55 (20 outputs" in text
    by_id = {claim.id: claim for claim in found}
    assert (
        "overlap 0.4, at k = 12, multiple of that of random spaces 13,"
        in by_id["control_centred_peak"].note
    )
    assert by_id["live_narrow-8"].per_seed[0] == pytest.approx(0.5)


def test_every_claim_can_come_out_against_it_and_every_control_be_shown(tmp_path):
    found = claims_of(tmp_path, varied(BAD))
    for claim in found:
        assert claim.verdict == ("shown" if claim.control else "contradicted"), claim.id


def test_runs_that_diverge_say_nothing(tmp_path):
    gone = {"value": math.nan}
    found = claims_of(tmp_path, [{**row, "wide": gone} for row in varied(GOOD)])
    unknown = {claim.id for claim in found if claim.verdict == "inconclusive"}
    assert unknown == {"far_above_wide", "wide_peak", "live_wide", "mean_input", "decoupled"}


# Runs

TINY = Config(
    narrow=(2,), models=2, epochs=2, pairs=3,
    network=NetworkSettings(examples=60, chunk=40, widths=(4,)),
)  # fmt: skip
SMALL = SeedRun("run", 0, TINY, {})


def test_a_run(tmp_path, unchecked):
    record = Record.create(tmp_path / "run", SMALL.settings)
    study.run.run(SMALL, record)
    rows = {row["metric"]: row for row in record.rows()}
    assert list(rows) == ["narrow-2", "wide", "centred"]
    assert record.status == "finished"
    assert rows["wide"]["peak"] in (1, 2, 3)
    assert 0 < rows["centred"]["along"] < 0.3 < 0.7 < rows["narrow-2"]["along"] <= 1
    drawn, facts = record.load_arrays("narrow-2")
    assert drawn["y"].shape == (4, 1)
    assert facts["title"] == "narrow, width 2 (random: k / 128)"
    assert drawn["y"].max().item() == pytest.approx(rows["narrow-2"]["value"])


def test_divergence_and_pairs_that_are_not_found_are_recorded(tmp_path, monkeypatch, unchecked):
    wild = SeedRun("run", 0, replace(TINY, lr=1e30), {})
    record = Record.create(tmp_path / "wild", wild.settings)
    study.run.run(wild, record)
    assert all(math.isnan(row["value"]) for row in record.rows())
    few = lambda A, k: lg.top_eigenpairs(A, k, max_matvecs=k)  # noqa: E731
    monkeypatch.setattr(study.run, "top_eigenpairs", few)
    record = Record.create(tmp_path / "few", SMALL.settings)
    study.run.run(SMALL, record)
    assert all(math.isnan(row["value"]) for row in record.rows())


@pytest.mark.quick
def test_with_all_output_directions_the_space_is_the_same_whatever_the_model():
    """Where all inputs are the same, the top m eigenvectors span R^m (x) x."""
    x = torch.rand(1, 5, dtype=torch.float64).expand(12, 5)
    y = torch.arange(12) % 4
    layers = []
    for seed in (0, 1):
        model = torch.nn.Sequential(torch.nn.Flatten(), *mlp(5, 4, [3], "leaky_relu", seed))
        problem = lg.Problem(model.double(), "cross_entropy", [(x, y)])
        layers.append(study.run.first_layer(problem, 3))
    first, second = (layer.exact.vectors for layer in layers)
    assert eigenspace_overlap(first, second)[-1] == pytest.approx(1)
    torch.testing.assert_close(layers[0].along, torch.ones(3, dtype=torch.float64))
    assert layers[0].live == 3
    found = eigenspace_overlap(first, layers[0].decoupled.vectors)
    torch.testing.assert_close(found, torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"narrow": ()}, r"increasing widths from 2; got narrow = \(\)"),
        ({"narrow": (8, 6)}, "increasing widths from 2"),
        ({"models": 1}, "two models or more"),
        ({"lr": 0.0}, r"lr, batch_size and epochs above 0; got lr = 0\.0"),
        ({"pairs": 1}, "two pairs or more"),
        ({"network": NetworkSettings(model="lenet5")}, "the model mlp; got model = lenet5"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        replace(Config(), **settings)
