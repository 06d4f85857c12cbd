"""The study regularisers: its claims on records of known answer, and small runs."""

import math
from dataclasses import replace

import pytest

from lossgeom import Record
from lossgeom.lab.studies import regularisers as study
from lossgeom.lab.studies._network import NetworkSettings
from lossgeom.lab.studies._solution import GAP, JACOBIAN, LABEL_GAP, SHARPNESS
from lossgeom.lab.studies.regularisers.config import (
    BATCH,
    DECAY,
    NONE,
    PAPER,
    REGULARISERS,
    TECHNIQUES,
    Config,
)
from lossgeom.recording import correlations
from tests.lab import on_few_images

CONFIG = Config(
    lr=(0.2,), label_smoothing=(0.1, 0.6), augmentation=(0.1, 1.0), mixup=(0.1, 1.6),
    weight_decay=(0.0, 0.003),
)  # fmt: skip
RUNS = len(study.STUDY.plan(CONFIG, 1))
ENDS = SHARPNESS.name, JACOBIAN.name, GAP, LABEL_GAP, "train_loss"


def as_in_the_paper(lr, technique, strength, seed):
    """Sharpness, Jacobian norm, gap, gap without smoothing and training loss of a run."""
    strengths = CONFIG.strengths(technique)
    place = 2 * TECHNIQUES.index(technique) + strengths.index(strength) / len(strengths)
    jacobian = 20.0 - place - lr + 0.01 * seed
    if technique in ("mixup", "augmentation") and strength == strengths[-1]:
        jacobian += 3
    if (technique, strength) in ((DECAY, 0.0), (BATCH, CONFIG.batch_size[-1])):
        jacobian += 20
    sharpness = 1.01 + math.sin(37 * place) ** 2
    if technique in (NONE, "sam"):
        sharpness = 1.0 if technique == NONE else 0.5
    loss = math.cos(91 * place + lr) ** 2
    gap = 0.01 * jacobian + 0.005 * math.sin(53 * place + seed)  # in another order
    return sharpness + 0.001 * seed, jacobian, gap, 2 * gap, loss


def write(folder, seed, ends_of=as_in_the_paper, diverged=(), missing=()):
    """Records of one seed, whose runs end with given numbers."""
    records = []
    for run in study.STUDY.plan(CONFIG, seed + 1)[-RUNS:]:
        place = tuple(run.place.values())
        if place in missing:
            continue
        record = Record.create(folder / run.name, run.settings)
        if place in diverged:
            record.update(diverged_at=3)
        else:
            for metric, value in zip(ENDS, ends_of(*place, seed), strict=True):
                record.append({"step": 9, "metric": metric, "value": value})
        record.finish("diverged" if place in diverged else "finished")
        records.append(record)
    return records


@pytest.fixture
def few_resamples(monkeypatch):
    monkeypatch.setattr(correlations, "RESAMPLES", correlations.AT_ONCE)


def claims_of(folder, seeds=6, **answers):
    records = [r for seed in range(seeds) for r in write(folder, seed, **answers)]
    return {claim.id: claim for claim in study.STUDY.judge(CONFIG, records)}


def test_what_the_paper_says(tmp_path):
    found = claims_of(tmp_path)
    controls = {name for name, claim in found.items() if claim.control}
    assert controls == {"control_shuffled", "control_larger_batch"}
    assert {name for name, claim in found.items() if not claim.as_expected} == set()
    assert len(found) == 2 * 3 + 1 + 6 * 3 + 2 + len(controls)
    assert found["jacobian_beats_sharpness_for_gap"].note == f"Over {6 * RUNS} runs."
    assert "the Jacobian norm 1.00" in found["jacobian_goes_with_gap"].note
    text = study.claims.summary(CONFIG, list(found.values()))
    assert "2 of 2 negative controls fail" in text


@pytest.mark.usefixtures("few_resamples")
def test_every_claim_can_come_out_against_the_paper(tmp_path):
    def other_way(lr, technique, strength, seed):
        sharpness, jacobian, _, _, loss = as_in_the_paper(lr, technique, strength, seed)
        larger = 1 / jacobian
        turned = 1 / sharpness if technique != NONE else 1.0
        return turned, larger, jacobian, jacobian, loss

    found = claims_of(tmp_path, ends_of=other_way)
    held = {name for name, claim in found.items() if claim.verdict == "shown"}
    assert held == {f"{name}_and_gap" for name in REGULARISERS} | {"control_larger_batch"}


@pytest.mark.usefixtures("few_resamples")
def test_runs_that_diverge_count_as_infinite_or_are_left_out_and_counted(tmp_path):
    found = claims_of(tmp_path, diverged=[(0.2, "mixup", CONFIG.mixup[-1])])
    assert found["mixup_and_jacobian"].verdict == "contradicted"
    assert set(found["mixup_and_jacobian"].per_seed) == {math.inf}
    assert found["jacobian_goes_with_gap"].verdict == "shown"
    said = "without 6 that have no finite values"
    assert said in found["jacobian_beats_sharpness_for_gap"].note


@pytest.mark.usefixtures("few_resamples")
def test_a_seed_without_one_of_its_runs_is_left_out(tmp_path):
    records = write(tmp_path, 0) + write(tmp_path, 1, missing=[(0.2, NONE, 0.0)])
    assert {len(claim.per_seed) for claim in study.STUDY.judge(CONFIG, records)} == {1}


def test_the_plan():
    runs = study.STUDY.plan(CONFIG, 1)
    names = [run.name for run in runs]
    assert {(run.place["technique"], run.place["strength"]) for run in runs} == {
        (technique, strength)
        for technique in TECHNIQUES
        for strength in CONFIG.strengths(technique)
    }
    assert {"lr0.2-none0-seed10", "lr0.2-mixup0.1-seed10"} < set(names)
    steps = {run.name: study.STUDY.steps(run) for run in runs}
    assert steps["lr0.2-batch_size20-seed10"] == 25 * CONFIG.epochs
    assert steps["lr0.2-none0-seed10"] == 10 * CONFIG.epochs


def test_each_technique_changes_what_is_trained():
    recipes = {t: CONFIG.recipe(0.2, t, CONFIG.strengths(t)[-1]) for t in TECHNIQUES}
    plain = recipes[NONE]
    assert (plain.weight_decay, plain.label_smoothing, plain.ascent) == (0.0005, 0.0, None)
    assert recipes[DECAY].weight_decay == CONFIG.weight_decay[-1]
    assert recipes["label_smoothing"].label_smoothing == CONFIG.label_smoothing[-1]
    assert recipes[BATCH].batch_size == CONFIG.batch_size[-1]
    assert recipes["sam"].ascent is not None
    assert {t for t in TECHNIQUES if recipes[t].regularizers} == {
        "augmentation", "mixup", "jacobian_penalty"
    }  # fmt: skip
    assert [plain.schedule(step) for step in (0, 499, 500, 999)] == [1, 1, 0.1, 0.1]


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Each technique at its largest strength, on a few digits."""
    small = replace(
        CONFIG, epochs=2, common_batch=10, batch_size=(5,),
        network=NetworkSettings(examples=20, widths=(6,)),
    )  # fmt: skip
    records = {}
    for run in study.STUDY.plan(small, 1):
        technique, strength = run.place["technique"], run.place["strength"]
        if strength == small.strengths(technique)[-1]:
            record = Record.create(tmp_path_factory.mktemp("runs") / run.name, run.settings)
            study.STUDY.run(run, record)
            records[technique] = record
    return records


def test_every_technique_is_run_and_measured(ran):
    assert set(ran) == set(TECHNIQUES)
    for record in ran.values():
        assert record.status == "finished"
        ends = {name: record.series(name)[1][-1] for name in ENDS}
        assert all(math.isfinite(value) for value in ends.values())
    jacobians = {record.series(JACOBIAN.name)[1][-1] for record in ran.values()}
    assert len(jacobians) == len(TECHNIQUES)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": (0.0, 0.1)}, r"levels > 0; got lr = \(0\.0, 0\.1\)$"),
        ({"lr": ()}, "one or more increasing levels; got lr = "),
        ({"mixup": (0.4, 0.1)}, "one or more increasing levels; got mixup = "),
        ({"sam": (0.0,)}, "levels > 0; got sam = "),
        ({"weight_decay": (-1.0,)}, r"0 to 1e\+09; got weight_decay = "),
        ({"jacobian_penalty": (math.inf,)}, "got jacobian_penalty = "),
        ({"label_smoothing": (1.0,)}, r"0 to 0\.99; got label_smoothing = "),
        ({"augmentation": (1.5,)}, "0 to 1; got augmentation = "),
        ({"batch_size": (501,)}, "0 to 500; got batch_size = "),
        ({"common_batch": 0}, "1 to 500 examples; got common_batch = 0"),
        ({"common_decay": -1.0}, "a weight decay >= 0; got common_decay"),
        ({"decay": 0.0}, "0 < decay <= 1; got decay"),
        ({"epochs": 0}, "at least 1; got epochs = 0"),
        ({"network": NetworkSettings(data="two_moons")}, "images, which are augmented; got data"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        Config(**settings)


def test_the_papers_model_and_data(tmp_path):
    """The paper's preset with augmentation, on a few images in the format of the real files."""
    network = on_few_images(
        PAPER.network, tmp_path / "data", 4, examples=4, chunk=4, channels=1 / 64
    )
    assert (network.data, network.model, network.batch_norm) == ("cifar10", "resnet18", True)
    small = replace(PAPER, epochs=1, common_batch=2, batch_size=(4,), network=network)
    run = next(r for r in study.STUDY.plan(small, 1) if r.place["technique"] == "augmentation")
    record = Record.create(tmp_path / "run", run.settings)
    study.STUDY.run(run, record)
    assert record.status == "finished"
    assert math.isfinite(record.series(SHARPNESS.name)[1][-1])
