"""The claims on records of known answer, and a small real run that is stopped and goes on."""

import math
from dataclasses import replace

import pytest
import torch

from lossgeom import Record
from lossgeom.lab.studies import random_quadratic as study
from lossgeom.lab.studies._study import SeedRun
from lossgeom.lab.studies.random_quadratic.config import PAPER, Config
from lossgeom.quadratic import PhaseDiagram
from lossgeom.quadratic.trajectory import Trajectory
from tests.lab import StopError, claims_of_stages, run_of, varied

BELOW = {
    "value": 0.0,
    "diverged": 0.0,
    "passed": 0.0,
    "risen": 0.0,
    "held": math.nan,
    "sharpening": 1.0,
}
HELD = {"value": 0.8, "diverged": 0.0, "risen": 1.0, "held": 1.98, "sharpening": 1.4}
GONE = {
    "value": 0.0,
    "diverged": 1.0,
    "passed": 0.0,
    "risen": 0.0,
    "held": math.nan,
    "sharpening": math.nan,
}
GOOD = {
    "small": BELOW, "edge": HELD, "large": GONE, "linear": BELOW,
    "acceleration": {"value": 1.01, "halved": 0.25, "limit": 1.14, "velocity": 0.001},
    "diagram": {"value": 1.0},
}  # fmt: skip
BAD = {
    "small": {**HELD, "sharpening": 1.3},
    "edge": {**BELOW, "held": 2.2},
    "large": BELOW,
    "linear": HELD,
    "acceleration": {"value": 0.5, "halved": 1.0, "limit": 0.6, "velocity": 0.5},
    "diagram": {"value": 0.0},
}


def claims_of(folder, *numbers):
    return claims_of_stages(study.STUDY, Config(), folder, list(numbers))


def test_what_the_paper_says(tmp_path):
    found = claims_of(tmp_path, *varied(GOOD))
    assert all(claim.as_expected for claim in found)
    assert [claim.id for claim in found if claim.control] == [
        "control_linear", "control_linear_edge", "control_small_residuals",
        "control_half_residuals",
    ]  # fmt: skip
    text = study.claims.summary(Config(), found)
    assert "8 of 8 statements are shown" in text
    assert "80% of runs end at the edge of stability" in text
    note = next(claim.note for claim in found if claim.id == "acceleration")
    assert "As a multiple of 2 D P sigma_z^2 it is 1.140." in note


def test_every_claim_can_come_out_against_it_and_every_control_be_shown(tmp_path):
    for claim in claims_of(tmp_path, *varied(BAD)):
        assert claim.verdict == ("shown" if claim.control else "contradicted")


def test_too_little_to_say(tmp_path):
    """For a median over seeds; 40 runs of one seed say something about the share of runs."""
    found = {claim.id: claim for claim in claims_of(tmp_path / "one", GOOD)}
    shown = {name for name, claim in found.items() if claim.verdict == "shown"}
    assert shown == {"edge_of_stability", "divergence", "sharpening"}
    none_passed = {**GOOD, "edge": {**HELD, "held": math.nan}}
    found = {claim.id: claim for claim in claims_of(tmp_path / "two", GOOD, none_passed)}
    assert found["just_below"].verdict == "inconclusive"
    assert "1 of 2 seeds give a value" in found["just_below"].note


def test_shares_of_runs_stay_below_one(tmp_path):
    found = {claim.id: claim for claim in claims_of(tmp_path, *varied(GOOD))}
    assert found["divergence"].interval == pytest.approx((0.985, 1), abs=1e-3)  # 240 of 240 runs
    assert found["phases_in_order"].interval == pytest.approx((0.541, 1), abs=1e-3)
    assert found["edge_of_stability"].interval[1] < 1


# Runs

TINY = Config(
    outputs=4, parameters=7, runs_at_points=6, models=60, a=(0.1, 3.0), initial_curvature=(1.0,),
    runs=2, steps=300, large_a=4.0,
)  # fmt: skip
SMALL = SeedRun("run", 0, TINY, {})


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run that is not stopped."""
    return run_of(study.STUDY, SMALL, tmp_path_factory.mktemp("straight") / "run")


def test_a_run(straight):
    assert straight.status == "finished"
    rows = {row["metric"]: row for row in straight.rows()}
    assert list(rows) == list(study.run.STAGES)
    assert rows["large"]["diverged"] == 1
    assert rows["linear"]["sharpening"] == pytest.approx(1, abs=1e-12)
    assert rows["linear"]["risen"] == 0
    assert rows["acceleration"]["halved"] < 0.5 * rows["acceleration"]["value"]
    diagram, facts = straight.load_arrays("diagram")
    assert diagram["final"].shape == (2, 1)
    assert set(facts["marks"]) <= set(diagram)
    curves, _ = straight.load_arrays("trajectories-large_a")
    assert curves["y"].shape[1] == study.run.DRAWN
    assert curves["y"][-1].isnan().all()


def test_stopped_and_going_on_is_going_straight_through(tmp_path, monkeypatch, straight, unchecked):
    def stopping(config, record):
        raise StopError

    with monkeypatch.context() as patch:
        patch.setitem(study.run.STAGES, "linear", stopping)
        with Record.create(tmp_path / "run", SMALL.settings) as record, pytest.raises(StopError):
            study.run.run(SMALL, record)
    for done in ("small", "edge", "large"):
        monkeypatch.setitem(study.run.STAGES, done, stopping)  # which is not done again
    with Record.create(tmp_path / "run", SMALL.settings, resume=True) as record:
        study.run.run(SMALL, record)
    assert repr(record.rows()) == repr(straight.rows())  # NaN is not equal to itself


def test_outcome():
    """Two runs in the band, of which one passed the edge; one that is not over; one diverged."""
    ntk = torch.tensor([[1.0, 1.0, 1.0, 1.0], [2.2, 1.8, 2.3, 9.0], [1.95, 1.92, 1.95, math.nan]])
    found = Trajectory(
        torch.arange(3), {"ntk": ntk}, torch.tensor([-1, -1, -1, 2]), torch.tensor([2, 2, -1, -1]),
        {},
    )  # fmt: skip
    numbers = study.run.outcome(found)
    assert numbers["value"] == 0.5
    assert numbers["diverged"] == 0.25
    assert numbers["passed"] == 0.25
    assert numbers["held"] == pytest.approx(1.95)
    assert numbers["sharpening"] == pytest.approx(1.95)
    assert numbers["risen"] == 0.75


def test_phases_in_order():
    def column(at_edge, diverged):
        parts = (torch.tensor(values).double()[:, None] for values in (at_edge, diverged))
        edge, gone = parts
        a, nothing = torch.arange(1.0, len(at_edge) + 1), torch.zeros_like(edge)
        return PhaseDiagram(a, torch.ones(1), nothing, nothing, 1 - gone, gone, edge)

    assert study.run.in_order(column([0, 0.6, 0], [0, 0, 0.9]), 0)
    assert not study.run.in_order(column([0, 0.4, 0], [0, 0, 0.9]), 0)  # no edge
    assert not study.run.in_order(column([0, 0, 0.6], [0, 0.9, 0]), 0)
    assert not study.run.in_order(column([0.6, 0, 0], [0, 0, 0.9]), 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"runs": 0}, "at least 1; got outputs = 20, "),
        ({"small_a": 0.7}, "0 < small_a < edge_a < large_a; got small_a = 0.7"),
        ({"large_a": math.inf}, "0 < small_a < edge_a < large_a"),
        ({"curvature": 2.0}, r"curvature in \(0, 2\)"),
        ({"outputs": 1}, "two outputs or more"),
        ({"a": ()}, r"increasing positive values; got a = \(\)"),
        ({"a": (0.2, 0.1)}, "increasing positive values"),
        ({"initial_curvature": (0.0, 1.0)}, "increasing positive values; got initial_curvature"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        replace(Config(), **settings)


def test_the_papers_size():
    assert (PAPER.outputs, PAPER.parameters) == (60, 120)
