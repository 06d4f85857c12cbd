"""Networks that are trained by a recipe: what is measured, and that a killed run goes on."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

import lossgeom as lg
from lossgeom import Problem, Record
from lossgeom.lab.datasets import digits
from lossgeom.lab.models import mlp
from lossgeom.lab.studies import _solution
from lossgeom.lab.studies._solution import (
    AT_END,
    JACOBIAN,
    SHARPNESS,
    InUse,
    Recipe,
    gaps,
    losses,
    mediators,
    solve,
)
from lossgeom.lab.training import optimize
from lossgeom.lab.training.schedules import step_decay
from lossgeom.metrics import Accuracy
from tests.conftest import without_checks
from tests.lab import StopError

RECIPE = Recipe(0.1, 20, 6, weight_decay=1e-3, label_smoothing=0.1, schedule=step_decay(8, 0.5))
LOSSES = {
    f"{examples}_{of}"
    for examples in ("train", "test")
    for of in ("loss", "label_loss", "accuracy")
}


def few_digits():
    data = digits(30, seed=3)
    return replace(data, test=(data.test[0][:40], data.test[1][:40]))


def solved(folder, recipe=RECIPE, targets=few_digits, model=None, **options):
    """A record and the model that it is of: two steps an epoch, measured at every step or fewer."""
    data = targets()
    model = model or mlp(64, data.train[1].shape[1] if data.train[1].ndim > 1 else 10, (6,), seed=3)
    options = {"seed": 3, "chunk": 16, "every": 1, **options}
    with Record.create(folder, {"seed": 3}, resume=True) as record:
        solve(recipe, model, data, record, **options)
    return record, model, data


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run that is not stopped."""
    with without_checks():
        return solved(
            tmp_path_factory.mktemp("straight") / "run", along=[JACOBIAN],
            further=partial(mediators, seed=3),
        )  # fmt: skip


def values(record):
    return [(row["step"], row["metric"], row["value"]) for row in record.rows()]


def test_the_rows(straight):
    record, *_ = straight
    along, at_end = LOSSES | {JACOBIAN.name}, {metric.name for metric in AT_END}
    found = {(step, metric) for step, metric, _ in values(record)}
    once = {name for step, name in found if step == 12} - along
    mediating = {
        f"{of}_{layer}" for of in ("summand", "tail_jacobian", "layer_jacobian") for layer in (1, 2)
    }
    assert record.status == "finished"
    assert RECIPE.steps(30) == 12
    assert len(found) == len(values(record))
    assert once == at_end - along | {"gap", "label_gap", "root"} | mediating
    assert found == {(s, name) for s in range(13) for name in along} | {(12, n) for n in once}
    assert set(record.manifest["planned_at_end"]) == at_end
    assert record.manifest["mode"] == "train"


def test_what_they_say(straight):
    """The same by the library's functions, of the model that is the result."""
    record, model, data = straight
    ends = {metric: value for step, metric, value in values(record) if step == 12}
    train, test = (
        Problem(model, "cross_entropy", [part], label_smoothing=0.1)
        for part in (data.train, data.test)
    )
    losses = [problem.loss() - problem.label_entropy() for problem in (train, test)]
    labels = [Problem(model, "cross_entropy", [p]).loss() for p in (data.train, data.test)]
    assert [ends["train_loss"], ends["test_loss"]] == pytest.approx(losses, rel=1e-4)
    assert [ends["train_label_loss"], ends["test_label_loss"]] == pytest.approx(labels, rel=1e-4)
    assert ends["gap"] == pytest.approx(abs(losses[1] - losses[0]), rel=1e-3)
    assert ends["label_gap"] == pytest.approx(abs(labels[1] - labels[0]), rel=1e-3)
    assert ends["test_accuracy"] == pytest.approx(Accuracy()(test).value)
    assert ends[SHARPNESS.name] == pytest.approx(lg.sharpness(train).value, rel=1e-2)
    assert ends[JACOBIAN.name] == pytest.approx(lg.jacobian_norms(train).values.mean().item())


def test_mediators_are_those_of_the_summands(straight):
    record, model, data = straight
    ends = {metric: value for _, metric, value in values(record)}
    problem = Problem(model, "cross_entropy", [data.train], label_smoothing=0.1)
    for number, layer in enumerate(lg.layer_summands(problem), 1):
        expected = layer.mediators(tol=1e-3)
        for name in ("tail_jacobian", "layer_jacobian"):
            assert ends[f"{name}_{number}"] == pytest.approx(
                getattr(expected, name).value, rel=0.02
            )
        assert ends[f"summand_{number}"] == pytest.approx(expected.eigenvalue.value, rel=0.02)
        assert ends["root"] == pytest.approx(expected.root.value, rel=0.02)


@pytest.mark.parametrize("where", ["in the middle", "at the end"])
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path, monkeypatch, straight, unchecked, where):
    options = {"along": [JACOBIAN], "further": partial(mediators, seed=3)}
    started_at = []

    def stopping(*arguments, first, **others):
        started_at.append(first)
        for step in optimize(*arguments, first=first, **others):
            yield step
            if where == "in the middle" and step == 11 and len(started_at) == 1:
                raise StopError

    monkeypatch.setattr(_solution, "optimize", stopping)
    with monkeypatch.context() as patch:
        if where == "at the end":  # before the rows that are made of others
            patch.setattr(_solution, "gaps", lambda _: (_ for _ in ()).throw(StopError))
        with pytest.raises(StopError):
            solved(tmp_path / "run", **options)
    record, model, _ = solved(tmp_path / "run", **options)
    assert started_at == [0, {"in the middle": 10, "at the end": 12}[where]]
    assert values(record) == values(straight[0])
    for here, there in zip(model.parameters(), straight[1].parameters(), strict=True):
        assert torch.equal(here, there)


def test_losses_of_numbers_have_one_gap(tmp_path):
    def indicators():
        data = few_digits()
        train, test = (
            (inputs, nn.functional.one_hot(labels, 10).float())
            for inputs, labels in (data.train, data.test)
        )
        return replace(data, train=train, test=test)

    recipe = replace(RECIPE, label_smoothing=0.0, epochs=2)
    record, *_ = solved(
        tmp_path / "run", recipe, indicators, loss="squared_error", every=3, at_end=[SHARPNESS]
    )
    ends = {metric for _, metric, _ in values(record)}
    assert ends == {"train_loss", "test_loss", "gap", "sharpness"}
    assert record.series("train_loss")[0] == [0, 3, 4]


def test_a_run_that_diverges_has_no_gap(tmp_path):
    record, *_ = solved(tmp_path / "run", Recipe(1e30, 20, 4))
    assert record.status == "diverged"
    assert gaps(record).keys() == {"gap", "label_gap"}
    assert not {"gap", SHARPNESS.name} & {metric for _, metric, _ in values(record)}


def test_what_is_trained_and_what_is_in_use(tmp_path):
    """Sharpness is that of the mode of training, and all else that of the model in use."""
    model = nn.Sequential(nn.Linear(64, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 10))
    record, model, data = solved(tmp_path / "run", replace(RECIPE, epochs=2), model=model, chunk=30)
    ends = {metric: value for _, metric, value in values(record)}
    modes = {
        mode: Problem(
            model, "cross_entropy", [data.train], label_smoothing=0.1, mode=mode
        )
        for mode in ("train", "eval")
    }  # fmt: skip
    sharp = {mode: lg.sharpness(problem).value for mode, problem in modes.items()}
    assert ends[SHARPNESS.name] == pytest.approx(sharp["train"], rel=1e-2)
    assert sharp["eval"] != pytest.approx(sharp["train"], rel=0.05)
    in_use = modes["eval"].loss() - modes["eval"].label_entropy()
    assert ends["train_loss"] == pytest.approx(in_use, rel=1e-4)
    assert InUse("x", Accuracy())(modes["train"]).value == Accuracy()(modes["eval"]).value


class Counted(nn.Linear):
    calls = 0

    def forward(self, x):
        Counted.calls += 1
        return super().forward(x)


def test_losses_at_a_point_cost_one_forward_pass():
    model, (x, y) = Counted(64, 10), few_digits().train
    batches = [(x[:20], y[:20]), (x[20:], y[20:])]
    problem = Problem(model, "cross_entropy", batches, label_smoothing=0.1, mode="train")
    metrics = losses("train_", "cross_entropy")
    first = [metric(problem).value for metric in metrics]  # with a look at the model
    before, again = Counted.calls, problem.refreshed()
    found = [metric(again).value for metric in metrics]
    assert Counted.calls == before + 2
    assert found == first
    plain = Problem(model, "cross_entropy", batches)
    smooth = problem.in_mode("eval")
    assert found[0] == smooth.loss() - smooth.label_entropy()
    assert found[1:] == [plain.loss(), Accuracy()(plain).value]


def test_some_examples_are_enough_for_what_is_dear(tmp_path):
    recipe = replace(RECIPE, epochs=1)
    record, model, data = solved(tmp_path / "run", recipe, measured_on=5, along=[JACOBIAN])
    ends = {metric: value for _, metric, value in values(record)}
    whole = Problem(model, "cross_entropy", [data.train], label_smoothing=0.1)
    some = whole.take(5)
    assert ends[SHARPNESS.name] == pytest.approx(lg.sharpness(some).value, rel=1e-2)
    assert ends[JACOBIAN.name] == pytest.approx(lg.jacobian_norms(some).mean, rel=1e-4)
    assert ends["train_loss"] == pytest.approx(whole.loss() - whole.label_entropy(), rel=1e-4)
    assert ends[SHARPNESS.name] != pytest.approx(lg.sharpness(whole).value, rel=0.02)
