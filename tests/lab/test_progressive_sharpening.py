"""The study's claims on records of known answer, and one real run that is stopped and goes on."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from lossgeom import Record
from lossgeom.lab.models import vgg11
from lossgeom.lab.studies import _network
from lossgeom.lab.studies import progressive_sharpening as study
from lossgeom.lab.studies._network import NetworkSettings
from lossgeom.lab.studies.progressive_sharpening.config import PAPER, Config
from tests.lab import StopError, on_few_images

CONFIG = Config(lr=0.5, small_lr=0.1, label_smoothing=(0.0, 0.25, 0.5), steps=100, every=10)


def write(tmp_path, seed, jacobian_at, sharpness_at, diverged=()):
    """Records of one seed whose metrics are given functions of lr, smoothing and lr * step."""
    records = []
    for run in study.STUDY.plan(CONFIG, seed + 1)[-6:]:
        record = Record.create(tmp_path / run.name, run.settings)
        lr, smoothing = run.place["lr"], run.place["label_smoothing"]
        steps, every = CONFIG.rhythm(lr)
        for step in range(0, steps + 1, every):
            time = lr * step
            for metric, value in (
                ("sharpness", sharpness_at(lr, smoothing, time)),
                (study.run.JACOBIAN.name, jacobian_at(lr, smoothing, time)),
            ):
                value *= 1 + 1e-3 * seed
                record.append({"step": step, "metric": metric, "value": value})
        record.finish("diverged" if (lr, smoothing) in diverged else "finished")
        records.append(record)
    return records


def free(smoothing, time):
    """Sharpness that nothing holds: beyond 4 without smoothing only."""
    return (1 - smoothing) * min(time, 25) / 25 * 7


def verdicts(records):
    return {claim.id: claim.verdict for claim in study.STUDY.judge(CONFIG, records)}


def test_what_the_papers_say(tmp_path):
    def held(lr, smoothing, time):
        return min(free(smoothing, time), 4.1) if lr == 0.5 else free(smoothing, time)

    def jacobian(lr, smoothing, time):
        return 1 - smoothing + time / 1000

    records = [r for seed in range(6) for r in write(tmp_path, seed, jacobian, held)]
    assert verdicts(records) == {
        "jacobian_falls_with_smoothing": "shown",
        "sharpness_falls_with_smoothing": "shown",
        "arrested_at_the_edge": "shown",
        "stays_at_the_edge": "shown",
        "rise_together": "shown",
        "control_small_learning_rate": "contradicted",
        "control_stays_at_small_lr": "contradicted",
    }


def test_every_claim_can_come_out_against_the_paper(tmp_path):
    def not_held(lr, smoothing, time):
        return free(0.5 - smoothing, time)

    def falling(lr, smoothing, time):
        return smoothing - time / 1000

    records = [r for seed in range(6) for r in write(tmp_path, seed, falling, not_held)]
    found = verdicts(records)
    assert found["jacobian_falls_with_smoothing"] == "contradicted"
    assert found["sharpness_falls_with_smoothing"] == "contradicted"
    assert found["arrested_at_the_edge"] == "contradicted"
    assert found["rise_together"] == "contradicted"


def test_too_little_to_say(tmp_path):
    """One seed says little; where nothing goes beyond the edge, nothing can be held at it."""

    def flat(lr, smoothing, time):
        return 0.1 + time / 1e6

    records = write(tmp_path, 0, flat, flat)
    claims = {claim.id: claim for claim in study.STUDY.judge(CONFIG, records)}
    assert all(claim.verdict == "inconclusive" for claim in claims.values())
    assert "0 of 1 seeds give a value" in claims["arrested_at_the_edge"].note
    assert all(claim.verdict == "inconclusive" for claim in study.STUDY.judge(CONFIG, []))


def test_runs_that_nothing_holds_are_not_at_the_edge(tmp_path):
    """Both learning rates on the same curve, which goes a little beyond: that is no arrest."""

    def same(lr, smoothing, time):
        return free(smoothing, time)

    records = [r for seed in range(6) for r in write(tmp_path, seed, same, same)]
    assert verdicts(records)["arrested_at_the_edge"] == "contradicted"


def test_sharpness_at_the_edge_of_the_small_learning_rate_says_nothing(tmp_path):
    def beyond(lr, smoothing, time):
        return 4 * free(smoothing, time)

    records = [r for seed in range(6) for r in write(tmp_path, seed, beyond, beyond)]
    assert verdicts(records)["sharpness_falls_with_smoothing"] == "inconclusive"


def test_sharpness_that_falls_again_does_not_stay_at_the_edge(tmp_path):
    """Up to the edge, as in the first test, and down again: without a plateau it is not there."""

    def fallen(lr, smoothing, time):
        return free(smoothing, time) * (1 if time < 20 else 0.3)

    records = [r for seed in range(6) for r in write(tmp_path, seed, fallen, fallen)]
    assert verdicts(records)["stays_at_the_edge"] == "contradicted"


def test_a_run_that_diverges_is_not_at_the_edge(tmp_path):
    def held(lr, smoothing, time):
        return min(free(smoothing, time), 4.1) if lr == 0.5 else free(smoothing, time)

    records = [
        record
        for seed in range(6)
        for record in write(tmp_path, seed, held, held, diverged=[(0.5, 0.0)] * (seed > 2))
    ]
    found = {claim.id: claim for claim in study.STUDY.judge(CONFIG, records)}
    assert found["stays_at_the_edge"].per_seed[3:] == (0, 0, 0)
    claim = found["arrested_at_the_edge"]
    assert [math.isinf(value) for value in claim.per_seed] == [False] * 3 + [True] * 3
    assert claim.verdict == "inconclusive"
    places = [(0.5, smoothing) for smoothing in CONFIG.label_smoothing]
    records = [
        record
        for seed in range(6)
        for record in write(tmp_path / "all", seed, held, held, diverged=places)
    ]
    assert verdicts(records)["arrested_at_the_edge"] == "contradicted"


TINY = Config(
    lr=0.5, label_smoothing=(0.1, 0.3, 0.5), steps=30, every=2,
    network=NetworkSettings(examples=50, chunk=40, widths=(8,)),
)  # fmt: skip
SMALL = study.STUDY.plan(TINY, 1)[0]


def values(record):
    return [(r["step"], r["metric"], r["value"], r["matvecs"]) for r in record.rows()]


def test_stopped_and_going_on_is_going_straight_through(tmp_path, monkeypatch):
    straight = Record.create(tmp_path / "straight", SMALL.settings)
    study.run.run(SMALL, straight)
    assert straight.status == "finished"
    assert len(straight.rows()) == 16 * len(study.run.ON_ALL + study.run.ON_SOME)

    real = study.run.gradient_descent
    started_at = []

    def stopping(*arguments, first, **options):
        started_at.append(first)
        for step in real(*arguments, first=first, **options):
            if step == 23 and len(started_at) == 1:
                raise StopError
            yield step

    monkeypatch.setattr(study.run, "gradient_descent", stopping)
    with (
        Record.create(tmp_path / "halved", SMALL.settings) as record,
        pytest.raises(StopError),
    ):
        study.run.run(SMALL, record)
    with Record.create(tmp_path / "halved", SMALL.settings, resume=True) as record:
        study.run.run(SMALL, record)
    assert started_at == [0, 20]
    assert values(record) == values(straight)


def test_divergence_is_recorded(tmp_path):
    wild = study.STUDY.plan(replace(TINY, lr=1e30), 1)[0]
    record = Record.create(tmp_path / "wild", wild.settings)
    study.run.run(wild, record)
    assert record.status == "diverged"
    assert record.manifest["diverged_at"] < TINY.steps
    assert torch.isfinite(torch.tensor(record.series("sharpness")[1][0]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": -1.0}, r"expected 0 < small_lr < lr; got small_lr = 0\.25, lr = -1\.0$"),
        ({"lr": math.nan}, "expected 0 < small_lr < lr"),
        ({"label_smoothing": (0.1,)}, "three or more levels"),
        ({"label_smoothing": (0.1, 1.0)}, r"levels in \[0, 1\); got label_smoothing = "),
        ({"label_smoothing": (0.5, 0.1, 0.2)}, "increasing levels"),
        ({"steps": 0}, "1 <= every <= steps; got every = 8, steps = 0"),
        ({"every": 1000}, "1 <= every <= steps"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        Config(**settings)


def test_the_papers_model_and_data(tmp_path, monkeypatch):
    """The paper's preset on a few images in the format of the real files."""
    network = on_few_images(PAPER.network, tmp_path / "data", 6, examples=3, chunk=2)
    assert (network.data, network.model, PAPER.lr) == ("cifar10", "vgg11", 0.08)
    monkeypatch.setattr(_network, "vgg11", partial(vgg11, width=1 / 16))
    first = study.STUDY.plan(replace(PAPER, steps=1, every=1, network=network), 1)[0]
    record = Record.create(tmp_path / "run", first.settings)
    study.run.run(first, record)
    assert record.status == "finished"
    assert record.series("sharpness")[0] == [0, 1]
