"""The study's claims on records of known answer, its references, and one real run."""

import math
from dataclasses import replace

import pytest
import torch

from lossgeom import Record
from lossgeom.lab.studies import sgd_stability as study
from lossgeom.lab.studies._network import NetworkSettings
from lossgeom.lab.studies._study import SeedRun
from lossgeom.lab.studies.sgd_stability import linearised, minimum
from lossgeom.lab.studies.sgd_stability.config import Config
from lossgeom.lab.studies.sgd_stability.run import stages
from lossgeom.recording.drawings import load_drawing
from lossgeom.recording.for_report import Boundary, Prediction
from lossgeom.recording.record_format import RecordError
from tests.lab import run_of

POINTS = torch.tensor(linearised.POINTS, dtype=torch.float64)

# What has been computed by listing the batches: by batch size
WITHOUT_REPLACEMENT = {1: 0.644010, 2: 0.989710, 3: 1.197790, 4: 4 / 3}
WITH_REPLACEMENT = {1: 0.644010, 2: 0.873636, 3: 0.989710, 4: 1.059370}

STAYED, LEFT = {"value": 1e-6, "left": 0.0}, {"value": 0.5, "left": 1.0}
ENDED = {"descent": 0.5, "batch": 0.6}
GOOD = {
    "enumeration": {"value": 1e-12},
    "population": {"value": 1e-3, "plain": 0.3},
    "minimum": {"value": 1e-31, "ratio": 3.0},
    "start_batch1_at0.9": STAYED, "start_batch1_at1.3": LEFT,
    "start_batch10_at0.9": STAYED, "start_batch10_at1.3": LEFT,
    "full_batch_above_1": STAYED, "one_below_full_batch": LEFT,
    "end_lr0.04_batch1": {"value": 1.4, **ENDED}, "end_lr0.08_batch1": {"value": 1.45, **ENDED},
    "end_lr0.1_batch10": {"value": 1.1, **ENDED}, "end_lr0.2_batch10": {"value": 1.02, **ENDED},
}  # fmt: skip
GONE = {"value": math.nan, "descent": 2.0, "batch": math.nan, "diverged_at": 7}
BAD = {
    "enumeration": {"value": 1e-3},
    "population": {"value": 0.1, "plain": 1e-3},
    "minimum": {"value": 1e-31, "ratio": 1.1},
    "start_batch1_at0.9": LEFT, "start_batch1_at1.3": STAYED,
    "start_batch10_at0.9": LEFT, "start_batch10_at1.3": STAYED,
    "full_batch_above_1": LEFT, "one_below_full_batch": STAYED,
    "end_lr0.04_batch1": {"value": 3.0, "descent": 2.0, "batch": 0.2},
    "end_lr0.08_batch1": {"value": 0.5, "descent": 2.0, "batch": 0.2},
    "end_lr0.1_batch10": {"value": 4.0, "descent": 2.0, "batch": 0.2},
    "end_lr0.2_batch10": {"value": 0.9, "descent": 2.0, "batch": 0.2},
}  # fmt: skip


def claims_of(folder, *numbers):
    records = []
    for seed, each in enumerate(numbers):
        record = Record.create(folder / f"seed{seed}", SeedRun("run", seed, Config(), {}).settings)
        for step, (name, row) in enumerate(each.items(), 1):
            row = {key: value * (1 + 1e-3 * seed * (key in ("value", "plain", "batch")))
                   for key, value in row.items()}  # fmt: skip
            record.append({"step": step, "metric": name, **row})
        record.finish()
        records.append(record)
    return {claim.id: claim for claim in study.STUDY.judge(Config(), records)}


def test_what_the_papers_say(tmp_path):
    found = claims_of(tmp_path, *[GOOD] * 6)
    assert found.pop("batch_sharpness").verdict == "contradicted"
    assert all(claim.as_expected for claim in found.values())
    assert [name for name, claim in found.items() if claim.control] == [
        "control_plain_replicas", "control_threshold_of_one_for_all",
        "control_threshold_of_all_for_one", "control_descent",
    ]  # fmt: skip
    assert found["ends_just_below_batch1"].note == (
        "The median over seeds is 1.40 at 0.04, 1.45 at 0.08."
    )
    text = study.claims.summary(Config(), list(claims_of(tmp_path / "a", *[GOOD] * 6).values()))
    assert "7 of 8 statements are shown, and 4 of 4 negative controls fail" in text
    assert "100% of runs stay at 0.9 times their threshold, and 100% leave at 1.3 times" in text


def test_every_claim_can_come_out_against_them_and_every_control_be_shown(tmp_path):
    for claim in claims_of(tmp_path, *[BAD] * 6).values():
        assert claim.verdict == ("shown" if claim.control else "contradicted"), claim.id


def test_batch_sharpness_may_be_at_its_edge_or_undecided(tmp_path):
    def at(value):
        return {
            name: {**row, "batch": value} if "batch" in row else row for name, row in GOOD.items()
        }

    assert claims_of(tmp_path / "at", *[at(1.0)] * 6)["batch_sharpness"].verdict == "shown"
    mixed = [at(value) for value in (0.6, 0.7, 0.8, 0.9, 1.0, 1.1)]
    assert claims_of(tmp_path / "mixed", *mixed)["batch_sharpness"].verdict == "inconclusive"


def test_a_run_that_diverges_ends_at_no_minimum(tmp_path):
    gone = {name: GONE if name.startswith("end") else row for name, row in GOOD.items()}
    found = claims_of(tmp_path, *[gone] * 6)
    assert found["ends_just_below_batch10"].statistic == 0
    assert found["ends_just_below_batch1"].verdict == "contradicted"
    assert found["batch_sharpness"].verdict == "inconclusive"


# What the threshold is compared with


@pytest.mark.quick
@pytest.mark.parametrize(
    ("sampling", "expected"),
    [("without replacement", WITHOUT_REPLACEMENT), ("with replacement", WITH_REPLACEMENT)],
)
def test_thresholds_by_trying(sampling, expected):
    for batch_size, value in expected.items():
        batches = linearised.every_batch(POINTS, batch_size, sampling)
        assert linearised.threshold(batches) == pytest.approx(value, abs=1e-6)


@pytest.mark.quick
def test_growth_is_one_at_the_threshold_and_more_above():
    batches = linearised.every_batch(POINTS, 1, "without replacement")
    for multiple, expected in ((0.95, 0.91269), (1.0, 1.0), (1.05, 1.09707)):
        assert linearised.growth(batches, multiple * 0.644010) == pytest.approx(expected, abs=1e-5)


def test_populations_grow_as_second_moments_do_and_plain_replicas_do_not():
    batches = linearised.every_batch(POINTS, 1, "without replacement")
    lr = 1.05 * 0.644010
    branching = linearised.population_growth(batches, lr, 2000, 200, seed=0)
    assert branching == pytest.approx(1.097, abs=0.02)
    assert linearised.plain_growth(batches, lr, 2000, 200, seed=0) < 0.95
    assert linearised.population_growth(batches, lr, 2000, 200, seed=0) == branching
    one = linearised.every_batch(POINTS, 4, "without replacement")
    exact = linearised.population_growth(one, 1.0, 10, 60, seed=0)
    assert exact == pytest.approx(linearised.growth(one, 1.0))
    assert linearised.plain_growth(one, 1e-9, 10, 5, seed=0) == pytest.approx(1)


# Runs

TINY = Config(
    problems=1, replicas=40, population_steps=8, lr=0.05, descent_steps=300, batch_size=(1, 3),
    steps=60, noisy_lr=(0.05, 0.1), noisy_batch_size=(1, 3), noisy_steps=40, every=40,
    network=NetworkSettings(examples=6, widths=(3,), activation="tanh"),
)  # fmt: skip
SMALL = SeedRun("run", 0, TINY, {})


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run that is not stopped."""
    return run_of(study.STUDY, SMALL, tmp_path_factory.mktemp("straight") / "run")


def test_a_run(straight):
    rows = {row["metric"]: row for row in straight.rows()}
    assert list(rows) == list(stages(TINY))
    assert straight.status == "finished"
    assert rows["enumeration"]["value"] < 1e-8
    assert rows["minimum"]["value"] < 1e-25
    assert rows["start_batch1_at0.9"]["left"] == 0
    assert rows["end_lr0.1_batch3"]["threshold"] > 0
    assert 0 < rows["end_lr0.1_batch3"]["batch"] < 10
    drawing, arrays = load_drawing(straight, "boundary", Boundary)
    assert set(drawing.lines) <= set(arrays)
    assert arrays["x"].tolist() == [1, 2, 3, 5, 6]
    assert (arrays["threshold"].diff() >= -1e-9).all()
    _, ends = load_drawing(straight, "ends", Prediction)
    assert ends["line_y"].tolist() == [0.05, 0.1]


def test_stopped_and_going_on_is_going_straight_through(tmp_path, monkeypatch, straight, unchecked):
    """From the rows and arrays that were there, of which none is computed again."""
    rows = straight.rows()
    done = list(stages(TINY)).index("boundary")
    with Record.create(tmp_path / "run", SMALL.settings) as record:
        for row in rows[:done]:
            record.append(row)
        record.save_arrays("minimum", straight.load_arrays("minimum")[0])
        record.close()

    def stopping(*_):
        raise AssertionError

    for stage in ("enumeration", "population", "minimum", "start"):
        monkeypatch.setattr(study.run, stage, stopping)
    with Record.create(tmp_path / "run", SMALL.settings, resume=True) as record:
        study.run.run(SMALL, record)
    assert repr(record.rows()) == repr(rows)


def test_divergence_is_a_result(tmp_path, straight, unchecked):
    found = study.run.end(1e200, 3, SMALL, straight)
    assert math.isnan(found["value"])
    assert math.isnan(found["batch"])
    assert found["descent"] < 1
    assert found["diverged_at"] < TINY.noisy_steps
    theta = straight.load_arrays("minimum")[0]["theta"]
    assert minimum.distance_after(SMALL, theta, 1e200, 1) == math.inf


def test_arrays_that_are_gone(tmp_path):
    with pytest.raises(RecordError, match="has a row for the minimum, but not its arrays"):
        study.run.thresholds(Record.create(tmp_path / "run"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"replicas": 0}, "at least 1; got problems = 5, replicas = 0"),
        ({"noisy_lr": (0.1, 0.1, 0.1, -1.0)}, "learning rates > 0; got lr = 0.02, noisy_lr"),
        ({"batch_size": (10, 1)}, r"increasing batch sizes; got batch_size = \(10, 1\)"),
        ({"batch_size": (1, 101)}, r"batch sizes of 1 to 100; got batch_size = \(1, 101\)"),
        ({"noisy_lr": (0.1,)}, "as many learning rates as batch sizes, and one or more"),
        ({"below": 1.1}, r"0 < below < 1 < above; got below = 1\.1, above = 1\.3"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        replace(Config(), **settings)
