"""The study learning_rate_decay: its claims on records of known answer, and small runs."""

import math
from dataclasses import replace

import pytest

from lossgeom import Record
from lossgeom.bounds import stable_trace
from lossgeom.lab.studies import learning_rate_decay as study
from lossgeom.lab.studies._network import NetworkSettings
from lossgeom.lab.studies._solution import GAP, JACOBIAN, JACOBIAN_MAX, SHARPNESS
from lossgeom.lab.studies.learning_rate_decay.config import (
    COSINE,
    LARGE,
    OBJECTIVES,
    PAPER,
    SMALL,
    SQUARED,
    STEP,
    WITH,
    Config,
)
from lossgeom.lab.studies.learning_rate_decay.run import (
    G_X,
    PARAMETER_JACOBIAN,
    PROMISED_G_X,
    PROMISED_TRACE,
    TRACE,
)
from tests.lab import on_few_images

CONFIG = Config()
BETTER = {SMALL: 1.0, LARGE: 0.7, STEP: 0.75, COSINE: 0.8}  # Jacobian norm and gap


def write(folder, seed, at_end=BETTER, along=(1.0, 3.0, 2.0), promised=10.0, diverged=()):
    """Records of one seed, whose Jacobian norms and gaps end with given numbers."""
    records = []
    for run in study.STUDY.plan(CONFIG, seed + 1)[-12:]:
        objective, schedule = run.place.values()
        record = Record.create(folder / run.name, run.settings)
        end = at_end[schedule] + 0.001 * seed
        rows = [
            (step, metric.name, value)
            for metric in (JACOBIAN, PARAMETER_JACOBIAN)
            for step, value in zip(range(0, 600, 100), along * 2, strict=True)
        ]
        ends = dict.fromkeys([m.name for m in (JACOBIAN, PARAMETER_JACOBIAN, JACOBIAN_MAX)], end)
        if objective == SQUARED:
            at_the_end = 1 if schedule == LARGE else 2
            ends |= {TRACE: 5.0, PROMISED_TRACE: promised * at_the_end, G_X: end}
            ends |= {PROMISED_G_X: 0.3 * promised}
        rows += [(1000, name, value) for name, value in {**ends, GAP: end}.items()]
        for step, metric, value in rows:
            record.append({"step": step, "metric": metric, "value": value})
        record.finish("diverged" if tuple(run.place.values()) in diverged else "finished")
        records.append(record)
    return records


def claims_of(folder, seeds=6, **answers):
    records = [r for seed in range(seeds) for r in write(folder, seed, **answers)]
    return {claim.id: claim for claim in study.STUDY.judge(CONFIG, records)}


def test_what_the_papers_say(tmp_path):
    found = claims_of(tmp_path)
    controls = {name for name, claim in found.items() if claim.control}
    assert controls == {"control_settings_see_the_decay", "control_before_the_decay"}
    assert {name for name, claim in found.items() if not claim.as_expected} == set()
    assert len(found) == 11 + len(controls)
    assert found["gap"].per_seed[0] == pytest.approx(0.6**0.5)
    kept = math.log(0.6**0.5) / math.log(0.7)
    assert found["keeps_the_gain"].per_seed[0] == pytest.approx(kept)
    assert found["promised_trace"].statistic == 0.5
    assert "11 of 11 statements are shown" in study.claims.summary(CONFIG, list(found.values()))


def test_every_claim_can_come_out_against_the_papers(tmp_path):
    worse = {SMALL: 1.0, LARGE: 0.9, STEP: 1.05, COSINE: 1.05}
    found = claims_of(tmp_path, at_end=worse, promised=1.0)
    held = {name for name, claim in found.items() if claim.verdict == "shown"}
    assert held == {"jacobians_go_together", "jacobian_tells_which_is_better"}
    assert found["largest_jacobian_sees_the_decay"].verdict == "contradicted"  # 5 % are too few


def test_runs_that_diverge_count_as_infinite(tmp_path):
    found = claims_of(tmp_path, diverged=[(WITH, STEP), (SQUARED, LARGE)])
    for name in ("gap", "jacobian", "keeps_the_gain"):
        assert found[name].verdict == "contradicted"
    assert found["gap_without_weight_decay"].verdict == "shown"
    assert found["promised_trace"].verdict == "shown"  # of those that end


def test_the_plan_and_its_schedules():
    runs = study.STUDY.plan(CONFIG, 1)
    assert [run.name for run in runs[:2]] == [
        "weight_decay-small-seed10",
        "weight_decay-large-seed10",
    ]
    assert len(runs) == 3 * 4
    assert {study.STUDY.steps(run) for run in runs} == {CONFIG.steps} == {1000}
    assert CONFIG.recipe(WITH, SMALL).lr == pytest.approx(0.02)
    assert CONFIG.recipe(WITH, SMALL).schedule is CONFIG.recipe(WITH, LARGE).schedule is None
    assert [CONFIG.recipe(o, STEP).weight_decay for o in OBJECTIVES] == [0.0005, 0.0, 0.0]
    step, cosine = (CONFIG.recipe(WITH, schedule).schedule for schedule in (STEP, COSINE))
    assert [step(t) for t in (0, 499, 500, 999)] == [1, 1, 0.1, 0.1]
    assert [cosine(t) for t in (0, 500, 1000)] == pytest.approx([1, 0.55, 0.1])


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    small = replace(
        CONFIG, epochs=4, batch_size=10, measured=4,
        network=NetworkSettings(examples=20, widths=(6,)),
    )  # fmt: skip
    records = {}
    for run in study.STUDY.plan(small, 1):
        if run.place["objective"] == SQUARED and run.place["schedule"] != COSINE:
            record = Record.create(tmp_path_factory.mktemp("runs") / run.name, run.settings)
            study.STUDY.run(run, record)
            records[tuple(run.place.values())] = record
    return records


def test_runs_are_measured_along_training_and_at_the_end(ran):
    for record in ran.values():
        assert record.status == "finished"
        for metric in (JACOBIAN, PARAMETER_JACOBIAN):
            assert record.series(metric.name)[0] == [0, 2, 4, 6, 8]
        assert record.series(SHARPNESS.name)[0] == [8]
    until = {
        schedule: ran[SQUARED, schedule].series(JACOBIAN.name)[1] for schedule in (STEP, LARGE)
    }
    assert until[STEP][:3] == until[LARGE][:3]
    assert until[STEP][3:] != until[LARGE][3:]


def test_what_is_promised_depends_on_the_rate_at_the_end(ran):
    ends = {
        schedule: {name: ran[SQUARED, schedule].series(name)[1][-1] for name in
            (TRACE, PROMISED_TRACE, G_X, PROMISED_G_X)}
        for schedule in (SMALL, LARGE, STEP)
    }  # fmt: skip
    of = stable_trace(0.02, 10, 20, outputs=10, momentum=0.9).value
    for schedule in (SMALL, STEP):
        assert ends[schedule][PROMISED_TRACE] == pytest.approx(of)
    assert ends[LARGE][PROMISED_TRACE] == pytest.approx(of / 10)
    for end in ends.values():
        assert end[G_X] < end[PROMISED_G_X]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": 0.0}, "lr > 0; got lr = 0.0"),
        ({"decay": 1.0}, "0 < decay < 1; got decay = 1.0"),
        ({"weight_decay": 0.0}, "weight_decay > 0; got weight_decay = 0.0"),
        ({"epochs": 0}, "at least 1; got epochs = 0"),
        ({"batch_size": 501}, "at most 500 examples; got batch_size = 501"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        Config(**settings)


def test_the_papers_model_and_data(tmp_path):
    """The preset with the squared error, on a few images in the format of the real files."""
    network = on_few_images(
        PAPER.network, tmp_path / "data", 4, examples=4, chunk=4, channels=1 / 64
    )
    assert (network.data, network.model, network.batch_norm) == ("cifar10", "resnet18", True)
    small = replace(PAPER, epochs=1, measured=1, batch_size=2, network=network)
    run = study.STUDY.plan(small, 1)[-1]
    assert run.place == {"objective": SQUARED, "schedule": COSINE}
    record = Record.create(tmp_path / "run", run.settings)
    study.STUDY.run(run, record)
    assert record.status == "finished"
    assert math.isfinite(record.series(SHARPNESS.name)[1][-1])
    assert record.series(TRACE) == ([], [])
