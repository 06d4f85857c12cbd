"""The study's claims on records of known answer, what is learnt, and real runs."""

import math
from dataclasses import replace

import pytest
import torch

from lossgeom import Problem, Record, jacobian_norms
from lossgeom.lab.studies import sharpening_lower_bound as study
from lossgeom.lab.studies._network import NetworkSettings
from lossgeom.lab.studies._study import SeedRun
from lossgeom.lab.studies.sharpening_lower_bound import task
from lossgeom.lab.studies.sharpening_lower_bound.config import Config
from lossgeom.lab.studies.sharpening_lower_bound.run import named
from tests.conftest import without_checks

TWO = Config(label_smoothing=(0.0, 0.5))
LEVELS = TWO.label_smoothing
TINY = Config(
    label_smoothing=(0.0, 0.5), points=200, width=4, steps=4, every=2,
    network=NetworkSettings(examples=30, widths=(6,)),
)  # fmt: skip


def run_of(of, smoothing=0.0, config=TINY, seed=0):
    return SeedRun("run", seed, config, {"task": of, "label_smoothing": smoothing})


def curves(norm, bound, without_fit, loss=(1.0, 0.1, 0.01, 0.001)):
    return {"loss": loss, "jacobian": norm, "bound": bound, "bound_without_fit": without_fit}


def runs(norms, bounds, without_fit, contracted=True):
    """Curves on the interval by label smoothing, and the same on images, where V is left out."""

    def scaled(numbers, a):
        return [(1 - a if contracted else 1) * number for number in numbers]

    return {a: curves(scaled(norms, a), scaled(bounds, a), scaled(without_fit, a)) for a in LEVELS}


GOOD = runs([1, 3, 4, 5], [-1, 1, 2, 3], [3, 3, 3, 3])
BAD = runs([1, 3, 4, 5], [3, 0.5, 0.4, 0.3], [-1, 0, 1, 2], contracted=False)
GOOD_IMAGES = runs([1, 3, 2, 0.1], [-1, 1, 1, 1], [1, 1, 1, 1])
BAD_IMAGES = runs([1, 3, 4, 5], [-1, 1, 2, 3], [3, 3, 3, 3])


def claims_of(folder, *seeds, smoothed="finished"):
    records = []
    for seed, by_task in enumerate(seeds):
        for of, by_level in zip(task.TASKS, by_task, strict=True):
            for a, numbers in by_level.items():
                run = run_of(of, a, TWO, seed)
                record = Record.create(folder / f"{of}-{a}-{seed}", run.settings)
                for metric, values in numbers.items():
                    for step, value in enumerate(values):
                        value *= 1 - 1e-3 * seed * (metric == "bound")
                        row = {"step": step, "metric": named(metric, of), "value": value}
                        record.append(row)
                record.finish(smoothed if a else "finished")
                records.append(record)
    return {claim.id: claim for claim in study.STUDY.judge(TWO, records)}


def test_what_the_paper_says(tmp_path):
    found = claims_of(tmp_path, *[(GOOD, GOOD_IMAGES)] * 6)
    assert all(claim.as_expected for claim in found.values())
    assert found["jacobian_above_bound"].statistic == pytest.approx(1.0, rel=0.01)
    assert found["bound_rises_as_loss_falls"].per_seed == (-1,) * 6
    assert "a = 0 0.599, a = 0.5 0.599" in found["bound_says_much"].note
    assert "a = 0 9.97, " in found["control_variation_left_out"].note
    text = study.claims.summary(TWO, list(found.values()))
    assert "5 of 5 statements are shown, and 3 of 3 negative controls fail" in text
    assert "It ends at 0.60 or more of the norm" in text
    assert text.endswith("contracts it by about 1 - a is shown.")


def test_every_claim_can_come_out_against_it_and_every_control_be_shown(tmp_path):
    found = claims_of(tmp_path, *[(BAD, BAD_IMAGES)] * 6)
    for claim in found.values():
        assert claim.verdict == ("shown" if claim.control else "contradicted"), claim.id
    assert study.claims.summary(TWO, list(found.values())).endswith("is contradicted.")


def test_a_run_that_diverges_gives_no_value(tmp_path):
    found = claims_of(tmp_path, (GOOD, GOOD_IMAGES), smoothed="diverged")
    assert math.isnan(found["bound_says_much"].statistic)
    assert found["bound_contracts"].per_seed == ()


# What is learnt


def test_label_smoothing_contracts_targets():
    for of in task.TASKS:
        model, (inputs, sharp) = task.task_of(run_of(of))
        _, (same, smoothed) = task.task_of(run_of(of, 0.5))
        assert torch.equal(inputs, same)
        torch.testing.assert_close(smoothed.sum(1), torch.ones_like(smoothed[:, 0]))
        torch.testing.assert_close(smoothed[0] - smoothed[1], (sharp[0] - sharp[1]) / 2)
        assert (model(inputs).sum(1) - 1).abs().max() < 1e-6


def test_outputs_on_the_interval_are_a_softmax():
    model, (inputs, _) = task.interval(run_of(task.INTERVAL))
    logits = model[:-2](inputs)
    softmax = torch.cat([logits / 2, -logits / 2], 1).softmax(1)
    torch.testing.assert_close(model(inputs), softmax)


@pytest.mark.quick
def test_relative_entropies_by_hand_and_at_zero():
    targets = torch.tensor([[0.5, 0.5], [1.0, 0.0], [1.0, 0.0]])
    outputs = torch.tensor([[0.25, 0.75], [1.0, 0.0], [0.5, 0.5]], requires_grad=True)
    found = task.divergences(outputs, targets)
    expected = [0.5 * math.log(2) + 0.5 * math.log(2 / 3), 0.0, math.log(2)]
    assert found.tolist() == pytest.approx(expected, abs=1e-6)
    found.sum().backward()
    assert outputs.grad.isfinite().all()


# Runs


@pytest.mark.parametrize("of", task.TASKS)
def test_a_run(tmp_path, of):
    run = run_of(of, 0.5)
    with without_checks():
        record = Record.create(tmp_path / "run", run.settings)
        study.run.run(run, record)
    assert record.status == "finished"
    steps, bounds = record.series(named("bound", of))
    assert steps == [0, 2, 4]
    fits, variations = (record.series(named(name, of))[1] for name in ("fit", "variation"))
    assert (max(variations) > 0) == (of == task.INTERVAL)
    model, (inputs, targets) = task.task_of(run)
    problem = Problem(model, task.kl, [(inputs, targets)])
    first = record.series(named("jacobian", of))[1][0]
    assert first == pytest.approx(jacobian_norms(problem).max)
    assert record.series(named("loss", of))[1][0] == pytest.approx(problem.loss(), rel=1e-5)
    pairs = torch.cdist(inputs, inputs).fill_diagonal_(math.inf)
    slopes = (torch.cdist(targets, targets) - 2 * fits[0]) / pairs
    expected = max(slopes.max().item(), 0.0) - variations[0]
    assert bounds[0] == pytest.approx(expected, rel=1e-3, abs=1e-6)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label_smoothing": (0.1, 0.2)}, "a first level of 0"),
        ({"label_smoothing": (0.0, 0.5, 0.25)}, "increasing levels < 1"),
        ({"label_smoothing": (0.0,)}, "two or more levels"),
        ({"points": 1}, "at least 2"),
        ({"steepness": 0.0}, "steepness > 0"),
        ({"image_lr": -1.0}, "rates > 0"),
        ({"steps": 150}, "steps a multiple of every"),
    ],
)
def test_settings_that_make_no_sense(change, message):
    with pytest.raises(ValueError, match=f"expected {message}"):
        replace(Config(), **change)
