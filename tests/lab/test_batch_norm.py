"""The study batch_norm: its claims on records of known answer, and tiny runs."""

import math
from dataclasses import dataclass

import pytest
import torch

from lossgeom import Problem, Record
from lossgeom.lab.models import mlp
from lossgeom.lab.studies import batch_norm as study
from lossgeom.lab.studies._network import NetworkSettings, build, in_chunks
from lossgeom.lab.studies._study import SeedRun
from lossgeom.lab.studies.batch_norm.config import KINDS, Config
from lossgeom.lab.studies.batch_norm.run import (
    BATCH_JACOBIAN,
    EVAL_SHARPNESS,
    JACOBIAN,
    SHARPNESS,
    SOFTMAX_JACOBIAN,
)
from tests.conftest import without_checks

NETWORK = NetworkSettings(examples=20, chunk=10, widths=(6,), activation="tanh")
TINY = Config(label_smoothing=(0.1, 0.3, 0.5), steps=24, every=2, network=NETWORK)
SMALL = SeedRun("run", 0, TINY, {"kind": "batch_norm_at_edge", "label_smoothing": 0.1})


def values(kind, smoothing, at, grows, jacobian):
    """Sharpness and Jacobian rise below the edge; there one falls and the other goes on."""
    edge = 2 / TINY.rate(kind)
    sharpness = edge * (0.1 + 0.3 * at) * (1 - smoothing)
    if KINDS[kind][1]:
        sharpness = edge * (0.2 + at if at < 0.8 else 1.1 - 0.05 * at)
    norm = (1 + at * grows) * (1 - smoothing) * jacobian(at)
    return {
        SHARPNESS.name: sharpness,
        EVAL_SHARPNESS.name: 1.3 * sharpness,
        JACOBIAN.name: norm,
        SOFTMAX_JACOBIAN.name: norm,
        BATCH_JACOBIAN.name: norm / min(1.0, 0.5 + at),
    }


@dataclass(frozen=True)
class Ended:
    """What the claims read of a record; files would take ten times as long."""

    config: dict
    status: str
    of: dict

    def rows(self):
        return [
            {"metric": name, "step": step, "value": value}
            for name, series in self.of.items()
            for step, value in series.items()
        ]


def claims_of(*, diverged=(), grows=True, jacobian=lambda at: 1.0):
    records = []
    for run in study.STUDY.plan(TINY, 6):
        kind, smoothing = run.place.values()
        of = {}
        for step in range(0, 24, 3):
            found = values(kind, smoothing, step / 12, grows, jacobian)
            for place, (metric, value) in enumerate(found.items(), 1):
                off = 1 + 1e-4 * run.seed * place * (1 + step / 12)
                of.setdefault(metric, {})[step] = value * off
        records.append(Ended(run.settings, "diverged" if kind in diverged else "finished", of))
    return {claim.id: claim for claim in study.STUDY.judge(TINY, records)}


def test_what_the_paper_says():
    found = claims_of()
    assert [name for name, claim in found.items() if not claim.as_expected] == []
    assert found["sharper_in_eval_mode"].statistic == pytest.approx(1.3, rel=0.02)
    text = study.claims.summary(TINY, list(found.values()))
    assert "8 of 8 statements are shown, and 5 of 5 negative controls fail" in text
    assert "sharpness in eval mode is 1.30 times that in train mode" in text


def test_every_claim_can_come_out_against_the_paper():
    found = claims_of(grows=False, jacobian=lambda at: 3 - at)
    wrong = {name for name, claim in found.items() if not claim.as_expected}
    assert {"along_plain", "along", "softmax_grows", "logits_grow"} <= wrong


def test_without_runs_that_are_over():
    found = claims_of(diverged=tuple(KINDS))
    assert not any(claim.per_seed for claim in found.values())
    assert all(claim.verdict == "inconclusive" for claim in found.values())


def a_run(folder, config=SMALL):
    record = Record.create(folder, config.settings, resume=True)
    study.run.run(config, record)
    return record


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    with without_checks():
        return a_run(tmp_path_factory.mktemp("straight") / "run")


def test_what_is_measured(straight, tmp_path):
    """What statements are made on: at the edge, of both modes of batch normalisation."""
    for metric in (SHARPNESS, JACOBIAN, BATCH_JACOBIAN, SOFTMAX_JACOBIAN):
        assert len(straight.series(metric.name)[1]) == 13
    assert straight.series(EVAL_SHARPNESS.name)[0] == [*range(12, 25, 2)]
    with without_checks():
        place = {"kind": "batch_norm", "label_smoothing": 0.1}
        below = a_run(tmp_path / "below", SeedRun("below", 0, TINY, place))
    measured = {metric for _, metric in below.measured}
    assert len(below.series(JACOBIAN.name)[1]) == 13
    assert not measured & {EVAL_SHARPNESS.name, BATCH_JACOBIAN.name, SOFTMAX_JACOBIAN.name}


def test_a_killed_run_goes_on_to_the_same_bits(straight, tmp_path, monkeypatch):
    class KilledError(Exception):
        pass

    def killed(twin, model, batches, of=study.run.take_statistics, calls=[]):  # noqa: B006
        calls.append(0)
        if len(calls) == 12:
            raise KilledError
        of(twin, model, batches)

    with without_checks():
        monkeypatch.setattr(study.run, "take_statistics", killed)
        with pytest.raises(KilledError), Record.create(tmp_path / "run", SMALL.settings) as record:
            study.run.run(SMALL, record)
        monkeypatch.undo()
        resumed = a_run(tmp_path / "run")
    kept = ("step", "metric", "value")
    assert [[row[key] for key in kept] for row in resumed.rows()] == [
        [row[key] for key in kept] for row in straight.rows()
    ]


def test_statistics_of_all_batches():
    """In eval mode a twin does what the model does in train mode, where there is one batch."""
    settings = NetworkSettings(examples=20, widths=(6,), batch_norm=True)
    model, data = build(settings, 0)
    twin = mlp(64, 10, (6,), seed=1, batch_norm=True)
    twin = torch.nn.Sequential(torch.nn.Flatten(), *twin)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    study.run.take_statistics(twin, model, in_chunks(data.train, 20))
    norm = twin[2]
    inputs = twin[1](data.train[0].flatten(1))
    assert torch.allclose(norm.running_mean, inputs.mean(0), atol=1e-6)
    assert torch.allclose(norm.running_var, inputs.var(0), atol=1e-6)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    loss = Problem(twin, "cross_entropy", in_chunks(data.train, 20), mode="train").loss()
    there = Problem(model, "cross_entropy", in_chunks(data.train, 20), mode="train").loss()
    assert loss == pytest.approx(there)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"small_lr": 0.0}, "learning rates > 0; got small_lr = 0.0, lr = 2.0"),
        ({"lr": math.inf}, "learning rates > 0"),
        ({"label_smoothing": (0.1, 0.2, 1.0)}, r"levels in \[0, 1\)"),
        ({"label_smoothing": (0.1, 0.2)}, "three or more increasing levels"),
        ({"label_smoothing": (0.2, 0.1, 0.3)}, "three or more increasing levels"),
        ({"every": 0}, "1 <= every <= steps"),
        ({"network": NetworkSettings(model="lenet5", data="mnist")}, "a model that may have it"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        Config(**settings)
