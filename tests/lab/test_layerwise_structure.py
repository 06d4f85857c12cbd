"""The claims on records of known answer, and small real runs."""

import math
from dataclasses import replace

import pytest
import torch

from lossgeom import Record
from lossgeom.lab.studies import layerwise_structure as study
from lossgeom.lab.studies._network import NetworkSettings
from lossgeom.lab.studies.layerwise_structure.config import (
    BATCH_NORM,
    CENTRED,
    LAYERS,
    LENET5,
    MLP,
    NETWORKS,
    PAPER,
    Config,
)
from lossgeom.lab.studies.layerwise_structure.run import array_name
from tests.conftest import without_checks
from tests.lab.files import write_cifar10
from tests.lab.test_lab import write_mnist

GOOD = {
    "overlap": 0.97, "overlap_of_one": 0.98, "overlap_of_classes": 0.6, "rank_one": 0.98,
    "along_mean": 0.96, "input_ratio": 12.0, "mean_alignment": 0.999, "outliers": 9.0,
    "excess": 1.1,
}  # fmt: skip
BAD = {
    **GOOD, "overlap": 0.5, "overlap_of_classes": 0.1, "rank_one": 0.7, "along_mean": 0.5,
    "input_ratio": 1.5, "mean_alignment": 0.1, "outliers": 4.0, "excess": 2.0,
}  # fmt: skip
WEAK = {**BAD, "along_mean": 0.6}
AS_CONJECTURED = {MLP: GOOD, CENTRED: WEAK, BATCH_NORM: WEAK, LENET5: GOOD}
AGAINST_IT = {MLP: BAD, CENTRED: GOOD, BATCH_NORM: GOOD, LENET5: BAD}


def write(folder, seed, by_network, diverged=()):
    """Records of one seed, whose layers differ a little, as do those of other seeds."""
    records = []
    for run in study.STUDY.plan(Config(), seed + 1)[-len(NETWORKS) :]:
        network = run.place["network"]
        differs = seed * (1 + NETWORKS.index(network))
        record = Record.create(folder / run.name, run.settings)
        for i, layer in enumerate(LAYERS[network] if network not in diverged else ()):
            numbers = {
                name: value * (1 + (1e-4 * (differs + i) if name != "outliers" else 0))
                for name, value in by_network[network].items()
            }
            if network == MLP and layer == "fc1":
                numbers["outliers"] = 13 - numbers["outliers"]  # those of the first layer
            record.save_arrays(array_name(network, layer), {}, **numbers)
        record.finish("diverged" if network in diverged else "finished")
        records.append(record)
    return records


def claims_of(*seeds):
    found = study.STUDY.judge(Config(), [record for seed in seeds for record in seed])
    return {claim.id: claim for claim in found}


def test_what_is_conjectured(tmp_path):
    found = claims_of(*(write(tmp_path, seed, AS_CONJECTURED) for seed in range(6)))
    assert all(claim.as_expected for claim in found.values())
    assert [name for name, claim in found.items() if claim.control] == [
        "control_centred_overlap", "control_centred_rank_one", "control_centred_inputs",
        "control_batch_norm_overlap", "control_hidden_outliers",
    ]  # fmt: skip
    assert found["near_optimum"].statistic == pytest.approx(1.1, rel=1e-3)
    assert "fc1 1.1, fc2 1.1, fc3 1.1" in found["near_optimum"].note
    assert found["batch_norm_vectors"].statistic == pytest.approx(-0.36, rel=1e-3)
    assert "k = 1 0.98, k = 9 0.6" in found["overlap_fc1"].note
    text = study.claims.summary(Config(), list(found.values()))
    assert "13 of 13 statements are shown, and 5 of 5 negative controls fail" in text
    assert "0.97 in fc1 and 0.97 in fc2 of the mlp" in text


def test_every_claim_can_come_out_against_it_and_every_control_be_shown(tmp_path):
    found = claims_of(*(write(tmp_path, seed, AGAINST_IT) for seed in range(6)))
    together = found.pop("goes_with_input_ratio")  # which compares networks with each other
    assert together.verdict == "shown"
    for claim in found.values():
        assert claim.verdict == ("shown" if claim.control else "contradicted")


def test_ratio_and_overlap_need_not_go_together(tmp_path):
    worse = {**GOOD, "overlap": 0.3}
    found = claims_of(write(tmp_path, 0, {**AS_CONJECTURED, MLP: worse, LENET5: worse}))
    assert found["goes_with_input_ratio"].per_seed[0] < 0


def test_a_network_that_diverged_gives_no_value(tmp_path):
    found = claims_of(write(tmp_path, 0, AS_CONJECTURED, [BATCH_NORM]))
    assert found["overlap_fc1"].per_seed == (0.97,)
    for name in ("batch_norm_inputs", "batch_norm_vectors", "goes_with_input_ratio"):
        assert found[name].per_seed == ()
        assert "0 of 1 seeds give a value" in found[name].note


# Runs

TINY = Config(
    steps=6, lenet5_steps=2, every=2, pairs=10, measured=4, batch_size=6,
    network=NetworkSettings(examples=12, chunk=12, widths=(4, 3)),
)  # fmt: skip


def run_of(network, config=TINY):
    return next(r for r in study.STUDY.plan(config, 1) if r.place["network"] == network)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_run(tmp_path, network):
    record = Record.create(tmp_path / "run", run_of(network).settings)
    with without_checks():
        study.run.run(run_of(network), record)
    assert record.status == "finished"
    for layer in LAYERS[network]:
        arrays, facts = record.load_arrays(array_name(network, layer))
        assert arrays["y"].shape == (10, 1)
        assert ((arrays["y"] >= 0) & (arrays["y"] <= 1 + 1e-6)).all()
        assert facts["title"] == f"{network}: {layer}"
        assert facts["overlap_of_one"] == pytest.approx(arrays["y"][0, 0].item(), abs=1e-6)
        assert (facts["excess"] >= 1) if network == MLP else math.isnan(float(facts["excess"]))
        assert facts["input_ratio"] >= 1
    if network == CENTRED:
        arrays, _ = record.load_arrays("map-centred-fc1")
        assert arrays["energy"].shape == (9, 5)
        assert facts["mean_alignment"] <= 1 + 1e-6
    assert len(record.rows()) == 2 * (1 + (1 if network == LENET5 else 3))


def test_divergence_is_recorded(tmp_path):
    wild = run_of(MLP, replace(TINY, lr=1e30))
    record = Record.create(tmp_path / "wild", wild.settings)
    study.run.run(wild, record)
    assert record.status == "diverged"
    assert record.load_arrays(array_name(MLP, "fc1")) is None


def test_stopped_and_going_on_is_going_straight_through(tmp_path, monkeypatch, unchecked):
    """With the running averages of batch normalisation."""
    config = replace(TINY, steps=12, every=1)
    run, numbers = run_of(BATCH_NORM, config), []
    real = study.run.sgd

    def stopping(*arguments, first, **options):
        for step in real(*arguments, first=first, **options):
            if step == 11 and first == 0 and not numbers:
                raise KeyboardInterrupt
            yield step

    for name in ("halved", "straight"):
        monkeypatch.setattr(study.run, "sgd", stopping if name == "halved" else real)
        with pytest.raises(KeyboardInterrupt) if name == "halved" else without_checks():
            study.run.run(run, Record.create(tmp_path / name, run.settings))
        with Record.create(tmp_path / name, run.settings, resume=True) as record:
            if not record.is_over:
                study.run.run(run, record)
        numbers.append(record.load_arrays(array_name(BATCH_NORM, "fc2"))[1])
    assert repr(numbers[0]) == repr(numbers[1])  # NaN is not equal to itself


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": 0.0}, "expected lr > 0"),
        ({"batch_size": 1001}, "a batch_size of 1 to 1000; got batch_size = 1001"),
        ({"every": 0}, "steps a multiple of every; got every = 0"),
        ({"lenet5_steps": 150}, "lenet5_steps a multiple of every; got every = 100"),
        ({"pairs": 9}, "pairs >= 10; got pairs = 9"),
        ({"measured": 1001}, "measured of 1 to 1000; got measured = 1001"),
        (
            {"network": NetworkSettings(widths=(3,))},
            "two widths; got model = mlp",
        ),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        Config(**settings)


@pytest.mark.parametrize(
    ("network", "data", "write"),
    [(MLP, "mnist", write_mnist), (LENET5, "cifar10", write_cifar10)],
)
def test_the_papers_data(tmp_path, network, data, write, unchecked):
    """The paper's preset on a few images in the format of the real files, with narrower layers."""
    assert (PAPER.network.data, PAPER.lr, PAPER.network.widths) == ("mnist", 0.01, (200, 200))
    write(tmp_path / "data", images=8)
    few = {"batch_size": 4, "steps": 1, "lenet5_steps": 1, "every": 1, "pairs": 10, "measured": 2}
    images = NetworkSettings(data, str(tmp_path / "data"), examples=8, chunk=8, widths=(4, 3))
    config = replace(PAPER, network=images, **few)
    run = run_of(network, config)
    record = Record.create(tmp_path / "run", run.settings)
    study.run.run(run, record)
    assert record.status == "finished"
    arrays, _ = record.load_arrays(array_name(network, "fc1"))
    assert torch.isfinite(arrays["y"]).all()
