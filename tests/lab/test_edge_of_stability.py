"""The study's claims on records of known answer, and real runs that are stopped and go on."""

import math
from dataclasses import replace

import pytest

from lossgeom import Record
from lossgeom.lab.models import mlp
from lossgeom.lab.studies import edge_of_stability as study
from lossgeom.lab.studies._network import NetworkSettings
from lossgeom.lab.studies.edge_of_stability.config import Config
from lossgeom.lab.studies.edge_of_stability.optimizers import OPTIMIZERS, WITHOUT_THRESHOLD

CONFIG = Config(steps=60, every=5)
CURVATURE = study.run.UPDATE_CURVATURE.name


def rising(step):
    """To the edge in 20 steps, and around it from then on."""
    return min(step / 20, 1.0) + 0.02 * (-1) ** step


def low(step):
    return 0.1 + step / 1e4


def write(tmp_path, seed, ratio_of, realised_of, diverged=()):
    """Records of one seed whose ratios and realised edges are given functions of a step."""
    records = []
    for run in study.STUDY.plan(CONFIG, seed + 1)[-len(OPTIMIZERS) :]:
        name = run.place["optimizer"]
        record = Record.create(tmp_path / run.name, run.settings)
        for step in range(0, CONFIG.steps, CONFIG.every):
            numbers = {"edge_ratio": ratio_of(name)(step), "realised_edge": realised_of(name)(step)}
            if name in WITHOUT_THRESHOLD:
                numbers = {CURVATURE: 2.0}
            for metric, value in numbers.items():
                value *= 1 + 1e-3 * seed
                record.append({"step": step, "metric": metric, "value": value})
        record.finish("diverged" if name in diverged else "finished")
        records.append(record)
    return records


def claims(records):
    return {claim.id: claim for claim in study.STUDY.judge(CONFIG, records)}


def held(name):
    return low if name == "small_lr" else rising


def free(name):
    return rising if name == "small_lr" else low


def test_what_the_papers_say(tmp_path):
    found = claims([r for seed in range(6) for r in write(tmp_path, seed, held, held)])
    assert all(claim.as_expected for claim in found.values())
    assert [name for name, claim in found.items() if claim.control] == [
        "control_small_lr", "control_realised_small_lr", "control_without_momentum",
    ]  # fmt: skip
    assert found["control_without_momentum"].statistic == pytest.approx(1.7, rel=0.05)
    assert "2.00 for Muon and 2.00 for sign descent" in found["verdict"].note
    text = study.claims.summary(CONFIG, list(found.values()))
    assert "9 of 9 statements are shown, and 3 of 3 negative controls fail" in text
    assert "0.11 of gradient descent at lr = 0.02" in text


def test_every_claim_can_come_out_against_the_papers(tmp_path):
    found = claims([r for seed in range(6) for r in write(tmp_path, seed, free, free)])
    opposite = {True: "shown", False: "contradicted"}
    del found["control_without_momentum"]  # no run of heavy ball is at either threshold
    assert all(claim.verdict == opposite[claim.control] for claim in found.values())


def test_a_run_that_diverges_is_not_at_the_edge(tmp_path):
    records = [
        r for seed in range(6) for r in write(tmp_path, seed, held, held, diverged=["nesterov"])
    ]
    found = claims(records)
    assert found["threshold_nesterov"].statistic == math.inf
    assert found["threshold_nesterov"].verdict == "contradicted"
    assert found["threshold_adam"].verdict == "shown"
    assert found["verdict"].per_seed == (0.8,) * 6


def test_too_little_to_say(tmp_path):
    found = claims(write(tmp_path, 0, held, held))
    verdicts = {name for name, claim in found.items() if claim.verdict != "inconclusive"}
    assert verdicts <= {"verdict"}  # of five runs
    assert "an interval needs 6" in found["threshold_adam"].note


# Runs

TINY = Config(
    steps=24, every=3, network=NetworkSettings(examples=40, widths=(6,), activation="tanh")
)


def planned(optimizer, config=TINY):
    (run,) = (run for run in study.STUDY.plan(config, 1) if run.place["optimizer"] == optimizer)
    return run


def test_optimizers_are_made_with_the_settings_of_the_study():
    model = mlp(4, 2, [3], seed=0)
    for name, make in OPTIMIZERS.items():
        made = make(CONFIG, model)
        trained = [p for each in made for group in each.param_groups for p in group["params"]]
        assert {*trained} == {*model.parameters()}
        assert len(trained) == 4, name
    groups = {name: make(CONFIG, model)[0].param_groups[0] for name, make in OPTIMIZERS.items()}
    assert groups["heavy_ball"]["momentum"] == CONFIG.heavy_ball_momentum
    assert groups["nesterov"]["nesterov"]
    assert groups["adam"]["betas"] == (CONFIG.adam_beta1, CONFIG.adam_beta2)
    assert groups["muon"]["weight_decay"] == 0
    (plain,) = OPTIMIZERS["nesterov"](replace(CONFIG, nesterov_momentum=0.0), model)
    assert not plain.param_groups[0]["nesterov"]


@pytest.mark.parametrize(
    ("optimizer", "stopped", "first"), [("adam", 16, 12), ("muon", 16, 12), ("heavy_ball", 5, 0)]
)
def test_stopped_and_going_on_is_going_straight_through(
    tmp_path, monkeypatch, optimizer, stopped, first
):
    small = planned(optimizer)
    monkeypatch.setattr("lossgeom.lab.studies._training.SAVE_EVERY", 2)
    straight = Record.create(tmp_path / "straight", small.settings)
    study.run.run(small, straight)
    assert straight.status == "finished"
    assert straight.series("loss")[0] == list(range(0, 24, 3))
    assert not any(row.get("status") == "failed" for row in straight.rows())

    real, started_at = study.run.optimize, []

    def stopping(*arguments, first, **options):
        started_at.append(first)
        for step in real(*arguments, first=first, **options):
            if step == stopped and len(started_at) == 1:
                raise KeyboardInterrupt
            yield step

    monkeypatch.setattr(study.run, "optimize", stopping)
    with Record.create(tmp_path / "halved", small.settings) as record:
        with pytest.raises(KeyboardInterrupt):
            study.run.run(small, record)
        assert record.status == "running"
        record.close()
    with Record.create(tmp_path / "halved", small.settings, resume=True) as record:
        study.run.run(small, record)
    assert started_at == [0, first]
    for metric in study.run.metrics_of(optimizer):
        steps, values = record.series(metric.name)
        assert steps == list(range(0, 24, 3))
        assert values == straight.series(metric.name)[1]


def test_rows_hold_the_edge_of_their_metric(tmp_path):
    small = planned("heavy_ball")
    record = Record.create(tmp_path / "run", small.settings)
    study.run.run(small, record)
    edges = {row["metric"]: row["threshold"] for row in record.rows() if row.get("step") == 0}
    assert edges == {"loss": None, "edge_ratio": 1, "realised_edge": 1, "update_curvature": 2}
    assert record.for_report.thresholds == {
        "edge_ratio": 1.0, "realised_edge": 1.0, "update_curvature": 2.0,
    }  # fmt: skip


def test_divergence_is_recorded(tmp_path):
    wild = planned("gradient_descent", replace(TINY, gradient_descent_lr=1e30))
    record = Record.create(tmp_path / "wild", wild.settings)
    study.run.run(wild, record)
    assert record.status == "diverged"
    assert record.manifest["diverged_at"] < TINY.steps


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"adam_lr": 0.0}, r"learning rates > 0; got adam_lr = 0\.0"),
        ({"muon_lr": math.inf}, "learning rates > 0; got muon_lr = inf"),
        ({"heavy_ball_momentum": 1.0}, r"numbers in \[0, 1\); got heavy_ball_momentum = 1\.0"),
        ({"adam_beta2": -0.1}, r"numbers in \[0, 1\); got adam_beta2"),
        ({"small_lr": 0.3}, "small_lr < gradient_descent_lr; got small_lr = 0.3"),
        ({"every": 1000}, "1 <= every <= steps"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        Config(**settings)
