"""The study's claims on records of known answer, its data and network, and real runs."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from lossgeom import Problem, Record
from lossgeom.lab.studies import pac_bayes as study
from lossgeom.lab.studies._network import NetworkSettings, in_chunks
from lossgeom.lab.studies._study import SeedRun
from lossgeom.lab.studies.pac_bayes import network
from lossgeom.lab.studies.pac_bayes.config import Config
from lossgeom.lab.studies.pac_bayes.run import AT_END, BASES, WITHOUT_KL, error, without_kl
from tests.conftest import without_checks

PLACES = [(labels, basis) for labels in (network.REAL, network.RANDOM) for basis in BASES]


def ends(bounds, kls, errors, without):
    """What the runs of a seed end with, by labels and basis."""
    numbers = zip(PLACES, bounds, kls, errors, strict=True)
    return {
        place: {"bound": bound, "kl": kl, "test_error": error, "sgd_test_error": 0.05,
                WITHOUT_KL: without}
        for place, bound, kl, error in numbers
    }  # fmt: skip


GOOD = ends(
    [0.57, 0.43, 0.38, 0.64, 0.63, 0.635], [640, 460, 430, 11, 3, 2],
    [0.08, 0.06, 0.05, 0.49, 0.5, 0.51], 0.46,
)  # fmt: skip
BAD = ends(
    [1.01, 1.02, 1.03, 0.45, 0.45, 0.45], [640, 460, 430, 400, 400, 400],
    [1.02, 1.03, 1.04, 0.49, 0.5, 0.51], 0.55,
)  # fmt: skip
BAD_ORDER = {**BAD, ("real", "recomputed"): {**BAD["real", "recomputed"], "bound": 1.04}}


def claims_of(folder, *seeds):
    records = []
    for seed, numbers in enumerate(seeds):
        for (labels, basis), values in numbers.items():
            run = SeedRun("run", seed, Config(), {"labels": labels, "basis": basis})
            record = Record.create(folder / f"{labels}-{basis}-{seed}", run.settings)
            for metric, value in values.items():
                record.append({"step": 300, "metric": metric, "value": value})
            record.finish()
            records.append(record)
    return {claim.id: claim for claim in study.STUDY.judge(Config(), records)}


def test_what_the_papers_say(tmp_path):
    found = claims_of(tmp_path, *[GOOD] * 6)
    assert all(claim.as_expected for claim in found.values())
    assert [name for name, claim in found.items() if claim.control] == [
        "control_without_kl", "control_standard_below_recomputed",
    ]  # fmt: skip
    assert found["decoupled_below_standard"].note.endswith(
        "Median bounds are 0.570 (standard), 0.430 (decoupled), 0.380 (recomputed)."
    )
    assert found["holds"].statistic == pytest.approx(0.33)
    assert "of the networks that SGD found, 0.050." in found["holds"].note
    text = study.claims.summary(Config(), list(found.values()))
    assert "7 of 7 statements are shown, and 2 of 2 negative controls fail" in text
    assert "APPR is at least 0.14 below BASE, and ITER 0.05 below APPR" in text


def test_every_claim_can_come_out_against_them_and_every_control_be_shown(tmp_path):
    for claim in claims_of(tmp_path, *[BAD_ORDER] * 6).values():
        assert claim.verdict == ("shown" if claim.control else "contradicted"), claim.id


def test_one_seed_is_enough_against_them(tmp_path):
    found = claims_of(tmp_path, *[GOOD] * 5, BAD_ORDER)
    assert not any(claim.verdict == "shown" for claim in found.values())


def test_a_search_that_diverges_gives_no_value(tmp_path):
    gone = {**GOOD, ("real", "decoupled"): {**GOOD["real", "decoupled"], "bound": math.nan}}
    found = claims_of(tmp_path, *[GOOD] * 5, gone)
    for name in ("below_one", "holds", "recomputed_below_decoupled"):
        assert len(found[name].per_seed) == 5
        assert "5 of 6 seeds give a value." in found[name].note


# Data, network and numbers

TINY = Config(
    epochs=2, batch_size=5, bound_epochs=12, samples=4,
    network=NetworkSettings(examples=20, chunk=2_000, widths=(4,)),
)  # fmt: skip


def run_of(labels, basis="standard", config=TINY, seed=0):
    return SeedRun("run", seed, config, {"labels": labels, "basis": basis})


def test_labels_are_those_of_the_digits_or_drawn_like_coins():
    (inputs, real), (others, _) = network.data(run_of(network.REAL))
    assert (inputs.min(), inputs.max()) == (0, 1)
    assert real.shape == (20, 1)
    assert set(real.unique().tolist()) == {0, 1}
    low = replace(TINY, ones=(0, 1, 2, 3, 4))
    halves = network.data(run_of(network.REAL, config=low))[0][1]
    assert not torch.equal(halves, real)
    (same, drawn), (_, drawn_test) = network.data(run_of(network.RANDOM))
    assert torch.equal(same, inputs)
    assert torch.equal(drawn, network.data(run_of(network.RANDOM))[0][1])
    assert drawn_test.mean() == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(len(others)))


def test_the_initialisation_of_dziugaite_and_roy():
    settings = NetworkSettings(widths=(600,))
    model = network.initialised(settings, torch.zeros(784), seed=3)
    first, last = model[1], model[3]
    assert first.weight.abs().max() <= 0.08
    cut_at_two = 0.8796  # deviation of a normal number that is no farther out than two
    assert first.weight.std().item() == pytest.approx(0.04 * cut_at_two, rel=0.01)
    assert torch.equal(first.bias, torch.full((600,), 0.1))
    assert last.bias.item() == 0
    again = network.initialised(settings, torch.zeros(784), seed=3)
    assert torch.equal(again[1].weight, first.weight)


@pytest.mark.quick
def test_errors_by_hand():
    model = nn.Linear(1, 1)
    nn.init.ones_(model.weight)
    nn.init.zeros_(model.bias)
    inputs = torch.tensor([[-1.0], [1.0], [2.0], [-2.0], [3.0]])
    labels = torch.tensor([[0.0], [1.0], [0.0], [1.0], [1.0]])
    assert error(Problem(model, network.LOSS, in_chunks((inputs, labels), 2))) == pytest.approx(0.4)
    assert without_kl(0.0, 100, 0.05) == pytest.approx(1 - 0.05 ** (1 / 100))
    assert 0.4 < without_kl(0.4, 100, 0.05) < 0.55


# Runs


@pytest.mark.parametrize("basis", BASES)
def test_a_run(tmp_path, basis):
    run = run_of(network.REAL, basis)
    with without_checks():
        record = Record.create(tmp_path / "run", run.settings)
        study.run.run(run, record)
    assert record.status == "finished"
    assert record.series("objective")[0] == [10, 12]
    last = {metric: record.series(metric)[1][-1] for metric in (*AT_END, "kl", "prior_variance")}
    assert last["train_error"] < last["bound"] <= 1
    assert 0 < last["prior_variance"] <= 0.1
    assert last["without_kl"] > last["sgd_train_error"]


def test_stopped_and_begun_again_is_going_straight_through(tmp_path, unchecked):
    run, rows = run_of(network.RANDOM), []
    for name in ("straight", "stopped"):
        with Record.create(tmp_path / name, run.settings) as record:
            if rows:
                record.append(rows[0])
            study.run.run(run, record)
        rows = record.rows()
        assert rows == Record.open(tmp_path / "straight").rows()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bound_lr": 0.0}, "learning rates > 0; got lr = 0.01, bound_lr = 0.0"),
        ({"momentum": 1.0}, r"a momentum in \[0, 1\); got momentum = 1.0"),
        ({"batch_size": 1401}, "a batch_size of 1 to 1400; got batch_size = 1401"),
        ({"samples": 1}, "samples of at least 2; got samples = 1"),
        ({"epochs": 0}, "at least 1; got epochs = 0"),
        ({"ones": tuple(range(10))}, "some of the classes 0 to 9, and not all; got ones"),
        (
            {"network": NetworkSettings(model="vgg11", data="cifar10")},
            "the model mlp; got",
        ),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        replace(Config(), **settings)
