"""The claims on records of known answer, and small real runs."""

import math
from dataclasses import replace

import pytest
import torch

from lossgeom import Record
from lossgeom.lab.studies import planar_quadratic as study
from lossgeom.lab.studies._study import SeedRun
from lossgeom.lab.studies.planar_quadratic.config import Config
from lossgeom.quadratic import Planar
from tests.conftest import without_checks
from tests.lab import StopError, claims_of_stages, varied

GOOD = {
    "limits": {"value": 0.02, "order": 1.01, "remainder": 2.01},
    "energies": {"value": 0.03, "without_E": 2.0},
    "sharpening": {"value": 0.02, "flow": 60.0},
    "below": {"value": -0.1, "end": -0.2, "off": 100.0},
    "conservation": {"value": 1e-13, "plane": 1e-13, "without_z": 0.4},
    "plane": {"value": 1.95},
}
BAD = {
    "limits": {"value": 0.3, "order": 0.5, "remainder": 1.0},
    "energies": {"value": math.inf, "without_E": 0.01},
    "sharpening": {"value": 1.0, "flow": 0.01},
    "below": {"value": 0.1, "end": -0.2, "off": 0.01},
    "conservation": {"value": 1e-3, "plane": 1e-3, "without_z": 1e-13},
    "plane": {"value": 1.0},
}


def claims_of(folder, *numbers):
    return claims_of_stages(study.STUDY, Config(), folder, list(numbers))


def test_what_the_theory_says(tmp_path):
    found = claims_of(tmp_path, *varied(GOOD))
    assert all(claim.as_expected for claim in found)
    assert [claim.id for claim in found if claim.control] == [
        "control_below", "control_flow", "control_without_E", "control_invariant",
    ]  # fmt: skip
    text = study.claims.summary(Config(), found)
    assert "8 of 8 statements are shown, and 4 of 4 negative controls fail" in text
    assert "within 2.0% of the predicted distance" in text


def test_every_claim_can_come_out_against_it_and_every_control_be_shown(tmp_path):
    for claim in claims_of(tmp_path, *varied(BAD)):
        assert claim.verdict == ("shown" if claim.control else "contradicted")


def test_too_little_to_say(tmp_path):
    """For a median over seeds; the starts of one seed may be enough to speak of most starts."""
    found = {claim.id: claim for claim in claims_of(tmp_path / "one", GOOD)}
    assert found["first_order"].verdict == found["second_order_remainder"].verdict == "inconclusive"
    assert "No counterexample in 16 starts" in found["limit_symmetric"].note
    started = {"limits": GOOD["limits"]}
    found = {claim.id: claim for claim in claims_of(tmp_path / "two", GOOD, started)}
    assert "1 of 2 seeds give a value" in found["invariant"].note


def test_one_start_that_crosses_the_edge_contradicts_that_none_does(tmp_path):
    """Though seeds are below it on average."""
    one = {**GOOD, "below": {**GOOD["below"], "value": 0.01}}
    found = {claim.id: claim for claim in claims_of(tmp_path, *varied(GOOD), one)}
    assert found["stays_below"].verdict == "contradicted"
    assert found["stays_below"].statistic == 0.01
    assert "1 of 7 seeds have a counterexample." in found["stays_below"].note


# Runs

TINY = Config(eps=(0.02, 0.03, 0.04), small_eps=0.02, fit_eps=0.04, E=(-1.0, 0.0), starts=3)
SMALL = SeedRun("run", 0, TINY, {})


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    monkeypatch.setattr(study.run, "STEPS", 300)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run that is not stopped."""
    record = Record.create(tmp_path_factory.mktemp("straight") / "run", SMALL.settings)
    with without_checks(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(study.run, "STEPS", 300)
        study.run.run(SMALL, record)
    return record


def test_a_run(straight):
    assert straight.status == "finished"
    rows = {row["metric"]: row for row in straight.rows()}
    assert list(rows) == list(study.run.STAGES)
    assert rows["limits"]["value"] < 0.05
    assert rows["conservation"]["value"] < 1e-12 < 0.1 < rows["conservation"]["without_z"]
    assert rows["below"]["value"] < 0 < 1 < rows["below"]["off"]
    limits, _ = straight.load_arrays("limits")
    assert limits["y"].shape == (3, 3)
    assert limits["x"].tolist() == list(TINY.eps)


def test_stopped_and_going_on_is_going_straight_through(tmp_path, monkeypatch, straight, unchecked):
    def stopping(config, record):
        raise StopError

    with monkeypatch.context() as patch:
        patch.setitem(study.run.STAGES, "below", stopping)
        with Record.create(tmp_path / "run", SMALL.settings) as record, pytest.raises(StopError):
            study.run.run(SMALL, record)
    for done in ("limits", "energies", "sharpening"):
        monkeypatch.setitem(study.run.STAGES, done, stopping)  # which is not done again
    with Record.create(tmp_path / "run", SMALL.settings, resume=True) as record:
        study.run.run(SMALL, record)
    assert record.rows() == straight.rows()


def test_starts_are_around_their_nominal_ones():
    z, T = study.run.draw_starts([(0.5, 2.2), (-1.0, 1.0)], 50, 0.2, seed=3)
    again, _ = study.run.draw_starts([(0.5, 2.2), (-1.0, 1.0)], 50, 0.2, seed=3)
    other, _ = study.run.draw_starts([(0.5, 2.2), (-1.0, 1.0)], 50, 0.2, seed=4)
    assert torch.equal(z, again)
    assert not torch.equal(z, other)
    assert ((z[:50] / 0.5 - 1).abs() <= 0.2).all()
    assert ((T[50:] - 2) / -1 - 1).abs().max() <= 0.2
    assert z[:50].std() > 0.03
    exact, _ = study.run.draw_starts([(0.5, 2.2)], 2, 0.0, seed=0)
    assert exact.tolist() == [0.5, 0.5]


def test_exponent():
    eps = [0.01, 0.02, 0.1]
    assert study.run.exponent(eps, [3 * value**2 for value in eps]) == pytest.approx(2)
    assert math.isnan(study.run.exponent(eps, [1.0, math.inf, 1.0]))


def test_runs_that_do_not_settle_are_infinitely_far_off(monkeypatch):
    planar, start = Planar(0.05), torch.tensor([0.05, 2.2]).double()[:, None]
    assert study.run.off(study.run.distances(study.run.settle(planar, *start)), planar) < 0.1
    monkeypatch.setattr(study.run, "STEPS_TIMES_KAPPA", 1)
    assert study.run.off(study.run.distances(study.run.settle(planar, *start)), planar) == math.inf


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"eps": (0.0, 0.01)}, r"eps in \(0, 1\]; got eps = "),
        ({"eps": (0.02, 0.01)}, "increasing eps"),
        ({"small_eps": 0.03}, "small_eps among eps; got small_eps = 0.03"),
        ({"fit_eps": 0.005}, "three or more eps up to fit_eps"),
        ({"E": (2.0,)}, r"E in \[-2/small_eps, 2\)"),
        ({"E": (0.0,)}, "an E other than 0"),
        ({"starts": 0}, "one start or more"),
        ({"spread": 0.5}, r"spread in \[0, 0.3\]"),
        ({"plane_eps": 1.0}, r"plane_eps in \(0, 1\)"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        replace(Config(), **settings)
