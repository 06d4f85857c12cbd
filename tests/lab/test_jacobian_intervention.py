"""The study jacobian_intervention: its claims on records of known answer, and tiny runs."""

import math

import pytest

from lossgeom import Record
from lossgeom.lab.studies import jacobian_intervention as study
from lossgeom.lab.studies._network import NetworkSettings
from lossgeom.lab.studies._study import SeedRun
from lossgeom.lab.studies.jacobian_intervention.config import ARMS, FREE, Config
from lossgeom.lab.studies.jacobian_intervention.run import GAP, HELD, MEAN, OFF, TEST_ERROR
from tests.conftest import without_checks

JACOBIAN, SHARPNESS = HELD
NETWORK = NetworkSettings(examples=20, widths=(6,), activation="tanh")
TINY = Config(steps=40, every=4, network=NETWORK)
SMALL = SeedRun("run", 0, TINY, {"arm": "jacobian_0.4"})


def ends(arm, *, by=0, off=0.05, low=0.3):
    """The gap goes with one quantity, by a power of it, and the other one moves less when free."""
    factors = [low + 0.5 if f is None and arm != FREE else f or 1.0 for f in ARMS[arm]]
    gap = 0.06 * factors[by] ** 0.25
    found = {GAP: gap, TEST_ERROR: gap, **dict(zip(MEAN.values(), factors, strict=True))}
    for name, factor, value in zip(HELD, ARMS[arm], factors, strict=True):
        found[OFF[name]] = value - 1 if factor is None else off
    return found


def write(folder, seed, *, out=(), **answers):
    """Records of one seed."""
    for place, run in enumerate(study.STUDY.plan(TINY, seed + 1)[-len(ARMS) :]):
        record = Record.create(folder / run.name, run.settings)
        for metric, value in ends(run.place["arm"], **answers).items():
            record.append(
                {"step": 40, "metric": metric, "value": value * (1 + 1e-4 * seed * place)}
            )
        record.update(left_out="it missed" if run.place["arm"] in out else None)
        record.finish()
        yield record


def claims_of(folder, seeds=6, **answers):
    records = [record for seed in range(seeds) for record in write(folder, seed, **answers)]
    return {claim.id: claim for claim in study.STUDY.judge(TINY, records)}


def test_the_jacobian_norm_does_it(tmp_path):
    found = claims_of(tmp_path)
    assert all(claim.as_expected for claim in found.values())
    assert found["mediated"].statistic == pytest.approx(1, rel=0.05)
    assert found["jacobian_0.4"].statistic == pytest.approx(1 - 0.4**0.25, rel=0.05)
    text = study.claims.summary(TINY, list(found.values()))
    assert "9 of 9 statements are shown, and 4 of 4 negative controls fail" in text
    assert (
        "lowers the gap by 20%. A sharpness of 0.4 times that of a free run, at the same Jacobian "
        "norm, lowers it by " in text
    )


def test_sharpness_does_it(tmp_path):
    found = claims_of(tmp_path, by=1)
    wrong = {name for name, claim in found.items() if not claim.as_expected}
    assert {"jacobian_0.4", "jacobian_0.7", "sharpness_0.4", "sharpness_0.7"} <= wrong
    assert {"sharpness_free", "test_error", "control_sharpness_lowers", "mediated"} <= wrong


def test_runs_that_miss_their_targets(tmp_path):
    """They are left out of the statements on the gap, and contradict those on targets."""
    found = claims_of(tmp_path / "off", off=0.3)
    assert found["held"].verdict == found["moved"].verdict == "contradicted"
    found = claims_of(tmp_path / "out", out=["jacobian_0.4"])
    gone = {name for name, claim in found.items() if not claim.per_seed}
    assert gone == {
        "jacobian_0.4", "test_error", "sharpness_free", "mediated", "control_mediated_by_sharpness"
    }  # fmt: skip
    found = claims_of(tmp_path / "still", low=0.5)
    assert found["control_free"].verdict == "shown"


def a_run(folder, config=SMALL):
    record = Record.create(folder, config.settings, resume=True)
    study.run.run(config, record)
    return record


def rows(record):
    return [(row["step"], row["metric"], row["value"]) for row in record.rows()]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run that is not stopped."""
    with without_checks():
        return a_run(tmp_path_factory.mktemp("straight") / "run")


def test_a_run_and_its_free_run(straight, tmp_path):
    """The free one inside is the free arm, which takes its place, and its curves the targets."""
    free = Record.open(straight.path / FREE)
    with without_checks():
        arm = a_run(tmp_path / "free-seed0", SeedRun("free", 0, TINY, {"arm": FREE}))
        beside = a_run(tmp_path / "run")
    assert rows(arm)[: len(rows(free))] == rows(free)
    assert rows(beside) == rows(straight)
    assert not (beside.path / FREE).exists()
    assert straight.series(GAP)[0] == [40]
    last = {name: straight.series(name)[1][-3:] for name in ("test_loss", "train_loss", JACOBIAN)}
    gap = (sum(last["test_loss"]) - sum(last["train_loss"])) / 3
    assert straight.series(GAP)[1] == [pytest.approx(gap)]
    target = 0.4 * sum(free.series(JACOBIAN)[1][-3:])
    assert straight.series(OFF[JACOBIAN])[1] == [pytest.approx(sum(last[JACOBIAN]) / target - 1)]
    assert "off its target" in straight.for_report.left_out  # in so few steps


@pytest.mark.parametrize("where", ["free", ""])
def test_a_killed_run_goes_on_to_the_same_bits(straight, tmp_path, monkeypatch, where):
    killed = tmp_path / "run"
    calls = []

    class KilledError(Exception):
        pass

    def tracker(self, step, of=study.run.Tracker.__call__):
        calls.append(step)
        if step == 38 and self.record.path == killed / where and calls.count(38) < 5:
            raise KilledError
        return of(self, step)

    with without_checks():
        monkeypatch.setattr(study.run.Tracker, "__call__", tracker)
        with pytest.raises(KilledError), Record.create(killed, SMALL.settings) as record:
            study.run.run(SMALL, record)
        monkeypatch.undo()
        resumed = a_run(killed)
    assert rows(resumed) == rows(straight)


def test_a_free_run_that_diverges(tmp_path):
    wild = Config(lr=1e30, clip=1e30, steps=8, every=4, network=NETWORK)
    record = a_run(tmp_path / "run", SeedRun("run", 0, wild, {"arm": "both_held"}))
    assert record.status == "diverged"
    assert record.for_report.left_out == "the free run diverged, so there are no curves"


def test_a_quantity_that_turns_negative(tmp_path):
    """It cannot be held, which is a result."""
    with Record.create(tmp_path / "free-seed0", {}) as free:
        for name, value in zip(HELD, (1.0, -1.0), strict=True):
            free.append({"step": 0, "metric": name, "value": value})
        free.finish()
    record = a_run(tmp_path / "run", SeedRun("run", 0, TINY, {"arm": "both_held"}))
    assert record.status == "diverged"
    assert (
        "a positive value at each, got 1 steps and 1 values, [-1.0]" in record.for_report.left_out
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strength": 0.0}, "expected numbers > 0; got lr = 0.1, clip = 1.0, strength = 0.0"),
        ({"lr": math.nan}, "numbers > 0"),
        ({"momentum": 1.0}, "0 <= momentum < 1"),
        ({"every": 0}, "1 <= every <= steps"),
        ({"every": 30}, "steps a multiple of every"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        Config(**settings)
