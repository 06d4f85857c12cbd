"""The claims on records of known answer, and one real run that is stopped and goes on."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from lossgeom import Record
from lossgeom.lab.models import vgg11
from lossgeom.lab.studies import _network
from lossgeom.lab.studies import gauss_newton_outliers as study
from lossgeom.lab.studies._network import NetworkSettings
from lossgeom.lab.studies.gauss_newton_outliers.config import PAPER, POINTS, Config
from lossgeom.lab.studies.gauss_newton_outliers.outliers import (
    Tops,
    largest_difference,
    number_of_outliers,
    overlap,
)
from lossgeom.linalg import top_eigenpairs
from tests.lab import StopError, on_few_images, run_of

CONFIG = Config(steps=40, every=20)
GOOD = {"outliers": 9.0, "gauss_newton_outliers": 9.0, "overlap": 0.99, "difference": 0.01,
        "overlap_with_next": 0.01, "overlap_with_residual": 0.1}  # fmt: skip
NONE = {**GOOD, "outliers": 0.0}


def write(folder, seed, real, shuffled, points=POINTS, status="finished"):
    """Records of one seed with the given numbers at the points of training."""
    records = []
    for run in study.STUDY.plan(CONFIG, seed + 1)[-2:]:
        record = Record.create(folder / run.name, run.settings)
        numbers = real if run.place["labels"] == "real" else shuffled
        for step, accuracy in ((0, 0.1), (20, 0.95), (40, 1.0)):
            record.append({"step": step, "metric": "accuracy", "value": accuracy})
            record.append({"step": step, "metric": "outliers", "value": numbers["outliers"]})
        numbers = {n: v if n == "outliers" else v * (1 + 1e-4 * seed) for n, v in numbers.items()}
        for point in points:
            record.save_arrays(study.run.array_name(point), {"x": torch.zeros(1)}, **numbers)
        record.finish(status)
        records.append(record)
    return records


def claims_of(*seeds):
    records = [record for seed in seeds for record in seed]
    return {claim.id: claim for claim in study.STUDY.judge(CONFIG, records)}


def test_what_the_papers_say(tmp_path):
    found = claims_of(*(write(tmp_path, seed, GOOD, NONE) for seed in range(6)))
    shuffled = found.pop("shuffled_number_at_initialisation")
    assert shuffled.verdict == "contradicted"  # the labels are the same at every point here
    controls = {name for name, claim in found.items() if claim.control}
    assert controls == {
        "control_shuffled_number_in_mid_training",
        "control_next_space_in_mid_training",
        "control_residual_space_in_mid_training",
    }
    assert len(found) == 9 + len(controls)
    assert all(claim.as_expected for claim in found.values())
    note = found["number_in_mid_training"].note
    assert "With shuffled labels: 0." in note
    assert "After that it is so at 6 of 6 measurements over all seeds." in note


def test_every_claim_can_come_out_against_the_paper_and_every_control_be_shown(tmp_path):
    bad = {"outliers": 3.0, "gauss_newton_outliers": 9.0, "overlap": 0.5, "difference": 0.5,
           "overlap_with_next": 0.95, "overlap_with_residual": 0.95}  # fmt: skip
    found = claims_of(*(write(tmp_path, seed, bad, GOOD) for seed in range(6)))
    assert found.pop("shuffled_number_at_initialisation").verdict == "shown"
    for claim in found.values():
        assert claim.verdict == ("shown" if claim.control else "contradicted")
        assert not claim.as_expected
    assert "After that it is so at 0 of 6" in found["number_in_mid_training"].note


def test_seeds_that_disagree_show_nothing(tmp_path):
    counts = (0.0, 2.0, 9.0, 9.0, 9.0, 11.0)
    seeds = [
        write(tmp_path, seed, {**GOOD, "outliers": count, "overlap": count / 11}, NONE)
        for seed, count in enumerate(counts)
    ]
    found = claims_of(*seeds)
    assert found["number_at_the_end"].verdict == "inconclusive"
    assert found["number_at_the_end"].per_seed == counts
    assert found["same_space_at_the_end"].verdict == "inconclusive"


def test_too_little_to_say(tmp_path):
    """One seed has no interval, nor has a point that training does not get to."""
    found = claims_of(write(tmp_path, 0, GOOD, NONE))
    assert all(claim.verdict == "inconclusive" for claim in found.values())
    seeds = [write(tmp_path, seed, GOOD, NONE, POINTS[:1], "diverged") for seed in range(1, 7)]
    found = claims_of(*seeds)
    assert found["number_at_initialisation"].verdict == "shown"
    assert found["number_at_the_end"].verdict == "inconclusive"
    assert "0 of 6 seeds give a value" in found["number_at_the_end"].note
    assert "With shuffled labels: not known." in found["number_at_the_end"].note


def test_pairs_that_did_not_converge_give_no_value(tmp_path):
    unknown = dict.fromkeys(GOOD, math.nan)
    found = claims_of(*(write(tmp_path, seed, unknown, unknown) for seed in range(6)))
    assert all(claim.verdict == "inconclusive" for claim in found.values())


def test_a_seed_with_one_of_its_runs_is_left_out(tmp_path):
    whole = [write(tmp_path, seed, GOOD, NONE) for seed in range(2)]
    found = claims_of(*whole, write(tmp_path, 2, GOOD, NONE)[:1])
    assert all(len(claim.per_seed) == 2 for claim in found.values())


def test_summary(tmp_path):
    found = claims_of(*(write(tmp_path, seed, GOOD, NONE) for seed in range(6)))
    text = study.claims.summary(CONFIG, list(found.values()))
    assert "the Hessian has 9 at initialisation (shown), 9 in mid-training (shown)" in text
    assert "on shuffled labels there are 0 outliers" in text


# The numbers


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([8.0, 7.0, 6.0, 1.0, 0.9], 3),
        ([8.0, 7.0, 2.0, 1.0, 0.1], 4),  # the largest gap in relation, not in size
        ([1.4, 1.3, 1.2, 1.1, 1.0], 0),
        ([1.5, 1.0, 0.9, 0.8, 0.7], 1),  # a gap of just the least size
        ([3.0, 2.9, 0.0, 0.0, -1.0], 2),  # nothing is below zero but zero
        ([3.0, 2.9, -1e-9, -0.5, -1.0], 2),
        ([0.0, 0.0, 0.0, 0.0, 0.0], 0),
        ([-1.0, -2.0, -3.0, -4.0, -9.0], 0),
        ([2.0, math.nan, 1.0, 1.0, 1.0], math.nan),
    ],
)
def test_number_of_outliers(values, expected):
    found = number_of_outliers(torch.tensor(values), gap=1.5)
    assert found == expected or (math.isnan(found) and math.isnan(expected))


def test_outliers_of_matrices_that_are_known():
    """A bulk with a few spikes at known places; the bulk alone has none."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(200, 400, generator=generator, dtype=torch.float64)
    bulk = noise @ noise.T / 400  # a Marchenko-Pastur law, whose edge is at 2.9
    spikes = torch.linalg.qr(torch.randn(200, 4, generator=generator, dtype=torch.float64)).Q
    for matrix, expected in ((bulk, 0), (bulk + 10 * spikes @ spikes.T, 4)):
        pairs = top_eigenpairs(matrix, 12)
        assert number_of_outliers(pairs.values, gap=1.5) == expected


def test_overlap_does_not_depend_on_the_bases():
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(50, 6, generator=generator, dtype=torch.float64)).Q
    turn = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64)).Q
    V, other = basis[:, :3], basis[:, 3:]
    assert overlap(V, V @ turn) == pytest.approx(1)
    assert overlap(V, other) == pytest.approx(0, abs=1e-12)
    angle = 0.3
    assert overlap(V, math.cos(angle) * V + math.sin(angle) * other) == pytest.approx(
        math.cos(angle) ** 2
    )


def test_numbers_of_two_matrices():
    H, G = (torch.diag(torch.tensor(d)) for d in ([9.0, 8, 1, 0.9, 0.5], [9.0, 10, 1, 0.8, 0.5]))
    found = Tops(top_eigenpairs(H, 4), top_eigenpairs(G, 4), first=2, gap=1.5)
    numbers = found.numbers()
    assert (numbers["outliers"], numbers["gauss_newton_outliers"]) == (2, 2)
    assert numbers["overlap"] == pytest.approx(1, abs=1e-5)
    assert numbers["overlap_with_next"] == pytest.approx(0, abs=1e-5)
    assert numbers["difference"] == pytest.approx(1 - 8 / 9, abs=1e-5)
    assert largest_difference(torch.tensor([1.0]), torch.tensor([2.0])) == 0.5
    unknown = replace(found, hessian=top_eigenpairs(H, 4, max_matvecs=4, tol=1e-12))
    assert not unknown.converged
    assert all(math.isnan(value) for value in unknown.numbers().values())


# Runs

TINY = Config(
    steps=44, every=4, pairs=18, probes=2, lanczos_steps=10, lr=1.0,
    network=NetworkSettings(examples=60, widths=(8,)),
)  # fmt: skip
SMALL = study.STUDY.plan(TINY, 1)[0]


def values(record):
    return [(r["step"], r["metric"], r["value"], r["matvecs"]) for r in record.rows()]


def spectra(record):
    return {point: record.load_arrays(study.run.array_name(point)) for point in POINTS}


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run that is not stopped."""
    return run_of(study.STUDY, SMALL, tmp_path_factory.mktemp("straight") / "run")


def test_a_run(straight):
    assert straight.status == "finished"
    assert len(straight.rows()) == 12 * 5
    found = spectra(straight)
    step = study.run.first_accurate(straight)
    assert 0 < step < 44
    assert found["mid-training"][1]["row"] == f"mid-training, step {step}"
    for arrays, facts in found.values():
        assert arrays["hessian_values"].shape == (18,)
        assert arrays["hessian_grid"].shape == arrays["hessian_stderr"].shape
        mass = torch.trapezoid(arrays["gauss_newton_density"], arrays["gauss_newton_grid"])
        assert mass == pytest.approx(1, abs=1e-3)
        assert facts["column"] == "real labels"
        assert 0 <= facts["overlap"] <= 1 + 1e-5
    rows = study.run.series(straight, "overlap")
    assert rows[step] == pytest.approx(found["mid-training"][1]["overlap"], abs=1e-6)


def test_stopped_and_going_on_is_going_straight_through(tmp_path, monkeypatch, straight, unchecked):
    real = study.run.gradient_descent
    started_at = []

    def stopping(*arguments, first, **options):
        started_at.append(first)
        for step in real(*arguments, first=first, **options):
            if step == 43 and len(started_at) == 1:
                raise StopError
            yield step

    monkeypatch.setattr(study.run, "gradient_descent", stopping)
    path = tmp_path / "halved"
    with Record.create(path, SMALL.settings) as record, pytest.raises(StopError):
        study.run.run(SMALL, record)
    with Record.create(path, SMALL.settings, resume=True) as record:
        study.run.run(SMALL, record)
    assert started_at == [0, 40]
    assert values(record) == values(straight)
    for (arrays, facts), (expected, same) in zip(
        spectra(record).values(), spectra(straight).values(), strict=True
    ):
        assert facts == same
        assert all(torch.equal(arrays[key], expected[key]) for key in expected)


def test_shuffling_changes_labels_only(tmp_path, monkeypatch, straight, unchecked):
    """It keeps the frequencies, and with them the Gauss-Newton matrix at initialisation."""
    monkeypatch.setattr(study.run, "FIRST_SEED", SMALL.seed + 1)  # which has the densities
    short = replace(TINY, steps=4)
    shuffled = replace(SMALL, place={"labels": "shuffled"}, study=short)
    record = Record.create(tmp_path / "run", shuffled.settings)
    study.run.run(shuffled, record)
    ours, theirs = (spectra(r)["initialisation"][0] for r in (record, straight))
    torch.testing.assert_close(ours["gauss_newton_values"], theirs["gauss_newton_values"])
    assert not torch.allclose(ours["hessian_values"], theirs["hessian_values"], rtol=1e-3)
    assert "hessian_density" not in ours
    assert spectra(record)["mid-training"] is None


def test_divergence_is_recorded(tmp_path):
    wild = replace(SMALL, study=replace(TINY, lr=1e30))
    record = Record.create(tmp_path / "wild", wild.settings)
    study.run.run(wild, record)
    assert record.status == "diverged"
    assert spectra(record)["initialisation"] is not None
    assert spectra(record)["end"] is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": 0.0}, r"expected lr > 0; got lr = 0\.0$"),
        ({"lr": math.nan}, "expected lr > 0"),
        ({"every": 0}, "1 <= every <= steps; got every = 0, steps = 800"),
        ({"every": 30}, "steps a multiple of every; got every = 30, steps = 800"),
        ({"pairs": 17}, "pairs >= 18, twice C - 1; got pairs = 17"),
        ({"probes": 1}, "two probes or more"),
        ({"lanczos_steps": 0}, "lanczos_steps >= 1"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        Config(**settings)


def test_the_papers_model_and_data(tmp_path, monkeypatch, unchecked):
    """The paper's preset on a few images in the format of the real files, with narrower layers."""
    network = on_few_images(PAPER.network, tmp_path / "data", 3, examples=3, chunk=2)
    assert (network.data, network.model, PAPER.lr) == ("cifar10", "vgg11", 0.08)
    few = {"steps": 1, "every": 1, "pairs": 18, "lanczos_steps": 2, "measured_on": 2}
    config = replace(PAPER, network=network, **few)
    monkeypatch.setattr(_network, "vgg11", partial(vgg11, width=1 / 32))
    first = study.STUDY.plan(config, 1)[0]
    record = Record.create(tmp_path / "run", first.settings)
    study.run.run(first, record)
    assert record.status == "finished"
    assert spectra(record)["end"][0]["gauss_newton_values"].shape == (18,)
