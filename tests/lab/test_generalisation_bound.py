"""The study's claims on records of known answer, and real runs."""

import math
from dataclasses import replace

import pytest
from torch import nn

from lossgeom import Record
from lossgeom.bounds import Cube
from lossgeom.lab.studies import generalisation_bound as study
from lossgeom.lab.studies._study import SeedRecords, SeedRun
from lossgeom.lab.studies.generalisation_bound.config import SURFACE, SURFACES, TASKS, Config
from lossgeom.lab.studies.generalisation_bound.run import FORMS, OFF, RATES, evaluated, plus_one
from lossgeom.lab.studies.generalisation_bound.seed_statistics import (
    Seed,
    crossing,
    predicted,
    reached,
)
from tests.conftest import without_checks

SIZES = Config(examples=(200, 1000, 5000, 20_000), examples_of_others=(1000,))
CONSTANTS = dict(zip(FORMS, (4.0, 3.0, 2.0, 2.0, 1.5, 1.0), strict=True))  # at a radius of 1
FIT, ERROR = 5e-4, 1e-4


def run_of(task, config=SIZES, seed=0):
    return SeedRun("run", seed, config, {"task": task})


def surface(N, powers=RATES, off_by=1.0):
    """What is measured in two dimensions, with bounds that fall like powers of delta."""
    delta = Cube(2).radius(N, 0.05)
    bounds = {form: FIT + c * delta ** powers[form] for form, c in CONSTANTS.items()}
    known = {"delta": delta, "range": 0.5, "constant": 0.1, "fit": FIT, "error": ERROR}
    known |= {"stderr": 1e-6, "two_nearest": 2.1, "likelihood": 1.9} | bounds
    if N == 1000:
        off = {form: bound + off_by for form, bound in bounds.items()}
        off |= {"error": 1.0, "stderr": 1e-6, "least_fit": off_by - 1e-3}
        known |= {OFF + name: value for name, value in off.items()}
    return known


def other(d, scale):
    """The same of another task, with all forms alike."""
    known = {"range": 2.0, "error": ERROR, "stderr": 1e-6, "two_nearest": d, "likelihood": d}
    return {**known, "fit": FIT, **dict.fromkeys(FORMS, scale)}


GOOD = {
    **{task: {1000: other(d, (d - 0.5) * 2)} for task, d in SURFACES.items()},
    SURFACE: {N: surface(N) for N in SIZES.examples},
    "decoder": {1000: other(2.0, 1.5)},
    "unregularised": {1000: other(2.0, 15.0)},
}
SLOW = {form: power / 4 for form, power in RATES.items()}
BAD = {
    **{task: {1000: other(d + 2, 1 / d)} for task, d in SURFACES.items()},
    SURFACE: {N: surface(N, {**SLOW, "difference": 1}, 0.0) for N in SIZES.examples},
    "decoder": {1000: other(2.0, 5.0)},
    "unregularised": {1000: {**other(2.0, 1.0), "error": 1.1}},
}


def claims_of(folder, *seeds):
    records = []
    for seed, tasks in enumerate(seeds):
        for task, sizes in tasks.items():
            record = Record.create(folder / f"{task}-{seed}", run_of(task, seed=seed).settings)
            for N, numbers in sizes.items():
                for metric, value in numbers.items():
                    vary = 1 + 1e-3 * seed * (N == 20_000 and metric in FORMS)
                    record.append({"step": N, "metric": metric, "value": value * vary})
            record.finish()
            records.append(record)
    return study.STUDY.judge(SIZES, records), records


def test_known_values_of_the_bound(tmp_path):
    found, _ = claims_of(tmp_path, *[GOOD] * 6)
    assert [claim.id for claim in found if not claim.as_expected] == []
    by_id = {claim.id: claim for claim in found}
    assert set(by_id) >= {f"rate_{form}" for form in FORMS}
    assert by_id["rate_latent"].statistic == pytest.approx(1, abs=0.01)
    assert by_id["rate_difference"].statistic == pytest.approx(2, abs=0.01)
    assert by_id["tight"].statistic == pytest.approx(surface(20_000)[FORMS[-1]] / ERROR, rel=0.01)
    assert "6 forms of 10 networks for each seed" in by_id["holds"].note
    assert "(extrapolated)" in by_id["foreseen_constant"].note
    assert "or fewer" in by_id["foreseen_range"].note
    text = study.claims.summary(SIZES, found)
    assert "negative controls fail, as they should" in text
    assert "the local form is 0.75 of the range" in text


def test_every_claim_can_come_out_against_them_and_every_control_be_shown(tmp_path):
    found, _ = claims_of(tmp_path, *[BAD] * 6)
    undecided = ("foreseen_range", "foreseen_constant")
    for claim in found:
        if claim.id not in undecided:
            assert claim.verdict == ("shown" if claim.control else "contradicted"), claim.id


def test_a_bound_that_does_not_get_to_a_level_as_foreseen(tmp_path):
    late = {N: surface(N) for N in SIZES.examples}
    late[200]["difference"] *= 16
    found, _ = claims_of(tmp_path, *[{**GOOD, SURFACE: late}] * 6)
    by_id = {claim.id: claim for claim in found}
    assert by_id["foreseen_constant"].verdict == "contradicted"


def test_a_student_that_does_not_fit_gives_no_tightness(tmp_path):
    unfit = {N: {**surface(N), "fit": 2e-3} for N in SIZES.examples}
    found, _ = claims_of(tmp_path, *[{**GOOD, SURFACE: unfit}] * 6)
    assert next(claim for claim in found if claim.id == "tight").per_seed == ()


def test_sizes_at_which_levels_are_reached(tmp_path):
    _, records = claims_of(tmp_path, GOOD)
    by_task = {(record.config["task"],): record for record in records}
    seed = Seed.of(SeedRecords(0, SIZES, by_task))
    constant = CONSTANTS["latent"]
    needed = 0.5 / constant  # radius, at which the latent form is at the range
    N = crossing(seed, "latent", "range")
    assert Cube(2).radius(round(N), 0.05) == pytest.approx(needed, rel=0.05)
    assert predicted(seed, "latent", "range", 200) == pytest.approx(N, rel=0.1)
    assert crossing(seed, "smooth_difference", "range") == 200
    assert crossing(seed, "ambient", "constant") == math.inf
    later = reached(seed, "ambient", "constant")
    assert Cube(2).radius(round(later), 0.05) == pytest.approx(0.1 / 4.0, rel=0.02)


# Runs

TINY = Config(
    examples=(60, 80, 100), examples_of_others=(80,), fit=1e-2, trained_on=60, new_points=500
)


def test_a_run(tmp_path):
    run = run_of(SURFACE, TINY)
    with without_checks():
        record = Record.create(tmp_path / "run", run.settings)
        study.run.run(run, record)
    assert record.status == "finished"
    sizes, fits = record.series("fit")
    assert sizes == list(TINY.examples)
    errors = record.series("error")[1]
    for form in FORMS:
        bounds = record.series(form)[1]
        assert all(b >= max(e, f) for b, e, f in zip(bounds, errors, fits, strict=True))
    off = {row["metric"]: row["value"] for row in record.rows() if OFF in row["metric"]}
    assert off[f"{OFF}error"] == pytest.approx(1, abs=0.05)
    assert off[f"{OFF}latent"] > 1


def test_the_error_of_a_network_by_hand():
    task = study.run.MAKE[SURFACE](seed=0)
    u, _, y = task.sample(100, 1)
    new = task.sample(400, 2)
    exact = nn.Sequential(*task.teacher, plus_one(y))
    found = evaluated(task, exact, u, new, 0.05)
    assert (found["error"], found["fit"], found["least_fit"]) == pytest.approx((1, 1, 1))
    assert found["stderr"] == pytest.approx(0, abs=1e-9)


def test_every_task_is_made():
    assert set(study.run.MAKE) == set(TASKS)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"examples": (500, 200, 1000)}, "three or more increasing sizes"),
        ({"examples_of_others": (7,)}, "one or more of the examples"),
        ({"fit": 0.0}, "fit > 0"),
        ({"epsilon": 1.0}, "epsilon in"),
        ({"trained_on": 0}, "at least 1"),
        ({"new_points": 1}, "at least 2"),
    ],
)
def test_settings_that_make_no_sense(change, message):
    with pytest.raises(ValueError, match=f"expected {message}"):
        replace(Config(), **change)
