"""Watching a run with one line."""

import copy
import io
import itertools
import json
import math
import random
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import lossgeom as lg
from lossgeom.recording.budget import Budget
from lossgeom.recording.monitor import LARGE, default_metrics
from lossgeom.recording.schedule import Every
from lossgeom.recording.watch import Watch
from lossgeom.recording.watch_lines import LiveLine

QUICK = [lg.metrics.Loss(), lg.metrics.Sharpness()]


def plain_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def noisy_model():
    torch.manual_seed(0)
    layers = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.2), nn.Linear(6, 3)
    return nn.Sequential(*layers)


def data(n=12, seed=1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=generator)
    return [(x, torch.randint(3, (n,), generator=generator))]


def train(model, optimizers, batches, steps):
    """A loop that knows nothing of being watched."""
    for x, y in itertools.islice(itertools.cycle(batches), steps):
        for optimizer in optimizers:
            optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        for optimizer in optimizers:
            optimizer.step()


def sgd(model):
    return [torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)]


def adam(model):
    return [torch.optim.Adam(model.parameters(), lr=0.01)]


def both(model):
    return [
        torch.optim.SGD(model[0].parameters(), lr=0.1),
        torch.optim.AdamW([p for part in model[1:] for p in part.parameters()], lr=0.01),
    ]


SECOND = {"metrics": QUICK, "budget": None, "every": 2}  # each second step


def killed_run(folder, steps, checkpoint=None):
    """A run whose process ends without a word; its model, and what that was at a step."""
    model, kept = plain_model(), None
    (optimizer,) = sgd(model)
    run = lg.watch(model, optimizer, "cross_entropy", data(), folder, **SECOND)
    for step in range(steps):
        if step == checkpoint:
            kept = copy.deepcopy(model.state_dict())
        train(model, [optimizer], data(), 1)
    run.record.close()
    run._steps.take_off()
    return model, kept


def trace_of(model, optimizers):
    """All that training leaves behind, and what it would draw next."""
    tensors = [*model.state_dict().values(), *(p.grad for p in model.parameters())]
    states = [o.state_dict()["state"] for o in optimizers]
    tensors += [v for s in states for own in s.values() for v in own.values() if v is not None]
    generators = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tobytes()
    return [t.detach().numpy().tobytes() if isinstance(t, torch.Tensor) else t for t in tensors], [
        generators[0].numpy().tobytes(),
        *generators[1:],
    ]


@pytest.mark.parametrize("make", [sgd, adam, both])
def test_training_is_the_same_to_the_last_bit(tmp_path, make, unchecked):
    left = []
    for watched in (False, True):
        model, batches = noisy_model(), data()
        optimizers = make(model)
        torch.manual_seed(2)
        if watched:
            every, probe = 3, data(20, seed=3)
            with lg.watch(
                model, optimizers, "cross_entropy", probe, tmp_path, every, budget=None
            ) as run:
                train(model, optimizers, batches, 5)
            assert run.failures == 0
            assert {row["step"] for row in run.record.rows()} == {0, 3}
        else:
            train(model, optimizers, batches, 5)
        left.append(trace_of(model, optimizers))
    assert left[0] == left[1]


def test_two_runs_have_the_same_rows(tmp_path):
    rows = []
    for i in range(2):
        model, folder = noisy_model(), tmp_path / str(i)
        (optimizer,) = sgd(model)
        with lg.watch(model, optimizer, "cross_entropy", data(), folder, 3, budget=None) as run:
            train(model, [optimizer], data(), 5)
        rows.append([{**row, "seconds": None} for row in run.record.rows()])
    assert repr(rows[0]) == repr(rows[1])  # NaN is not itself
    assert {row["step"] for row in rows[0]} == {0, 3}


# What is measured


def test_the_loss_that_is_trained_is_measured(tmp_path):
    model, batches = noisy_model(), data()
    (optimizer,) = sgd(model)
    loss = nn.CrossEntropyLoss(label_smoothing=0.1, weight=torch.tensor([1.0, 2.0, 3.0]))
    with lg.watch(model, optimizer, loss, batches, tmp_path, metrics=QUICK) as run:
        before = lg.Problem(model, loss, batches, mode="train", seed=0)
        train(model, [optimizer], batches, 1)
    assert run.last["loss"].value == before.loss()
    assert run.problem.mode == "train"
    assert run.record.manifest["mode"] == "train"
    assert "one draw a batch" in " ".join(run.record.manifest["notes"])


def test_the_value_in_eval_mode_stands_beside_it_where_it_is_another(tmp_path):
    model, batches = noisy_model(), data()
    (optimizer,) = sgd(model)
    with lg.watch(model, optimizer, "cross_entropy", batches, tmp_path) as run:
        nn.functional.cross_entropy(model(batches[0][0]), batches[0][1]).backward()
        evaluated = lg.Problem(model, "cross_entropy", batches, mode="eval")  # as it is by then
        expected = evaluated.loss(), lg.sharpness(evaluated).value
        optimizer.step()
    assert run.last["loss (eval)"].value == expected[0]
    assert run.last["sharpness (eval)"].value == pytest.approx(expected[1], rel=1e-3)
    assert run.last["sharpness (eval)"].value != pytest.approx(run.last["sharpness"].value, rel=0.1)


@pytest.mark.filterwarnings("ignore:no step of")
@pytest.mark.parametrize("settings", [{}, {"mode": "eval"}])
def test_nothing_stands_beside_it_where_it_is_the_same(tmp_path, settings):
    model = plain_model() if not settings else noisy_model()
    (optimizer,) = sgd(model)
    with lg.watch(model, optimizer, "cross_entropy", data(), tmp_path, **settings) as run:
        pass
    assert [metric.name for metric in run.metrics if "eval" in metric.name] == []
    assert run.problem.mode == settings.get("mode", "train")
    assert run.problem.seed is None


def test_what_a_metric_keeps_is_kept_for_each_mode_apart(tmp_path):
    class Keeping:
        name = "keeping"

        def __call__(self, problem):
            raise AssertionError

        def of_step(self, step):
            step.memory.setdefault("modes", []).append(step.before.mode)
            assert len(set(step.memory["modes"])) == 1
            return lg.Estimate(float(len(step.memory["modes"])))

    model = noisy_model()
    (optimizer,) = sgd(model)
    metrics = [Keeping(), lg.metrics.InMode(Keeping(), "eval")]
    with lg.watch(
        model, optimizer, "cross_entropy", data(), tmp_path, 1,
        metrics=metrics, on_error="raise", budget=None,
    ) as run:  # fmt: skip
        train(model, [optimizer], data(), 2)
    assert run.last["keeping"].value == run.last["keeping (eval)"].value == 2.0


def test_eigenvalues_of_large_models_are_not_measured():
    def names(P, evaluated):
        criterion = SimpleNamespace(average=True)
        problem = SimpleNamespace(theta=SimpleNamespace(numel=lambda: P), criterion=criterion)
        return {metric.name for metric in default_metrics(problem, evaluated)}

    spectral = {"sharpness", "edge_ratio", "sharpness_sampling_error"}
    assert spectral <= names(LARGE, False)
    assert names(LARGE, False) - names(LARGE + 1, False) == spectral
    beside = {"loss (eval)", "sharpness (eval)"}
    assert names(LARGE, True) - names(LARGE, False) == beside
    assert names(LARGE + 1, True) - names(LARGE + 1, False) == {"loss (eval)"}


# Whether training is on all that is measured on


@pytest.mark.parametrize(
    ("batches", "expected"),
    [(data(30), True), ([(x[:6], y[:6]) for x, y in data(30)], False)],
    ids=["full batch", "mini-batches"],
)
def test_whether_batches_are_full_is_told_from_gradients(tmp_path, batches, expected):
    model = plain_model()
    (optimizer,) = sgd(model)
    with lg.watch(
        model, optimizer, "cross_entropy", data(30), tmp_path, 1, metrics=QUICK, budget=None
    ) as run:
        for x, y in batches * 4:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.01)
            optimizer.step()
    assert run.record.manifest["watched"]["full_batch"] is expected
    cosines = run.record.series("gradient_cosine")[1]
    assert len(cosines) == 4
    assert (min(cosines) > 0.9999) is expected


def test_whether_batches_are_full_may_be_said(tmp_path):
    model = plain_model()
    (optimizer,) = sgd(model)
    settings = {"metrics": QUICK, "full_batch": True}
    with lg.watch(model, optimizer, "cross_entropy", data(), tmp_path, **settings) as run:
        train(model, [optimizer], data(6), 1)
    assert run.record.manifest["watched"]["full_batch"] is True
    assert "gradient_cosine" not in run.last


# The budget


class Clock:
    """A clock that says what it is told."""

    now = 0.0

    def __call__(self):
        return self.now


class Slow:
    name = "slow"

    def __init__(self, clock):
        self.clock = clock

    def __call__(self, problem):
        self.clock.now += 10.0
        return lg.Estimate(1.0)


def test_steps_beyond_the_budget_are_left_out_and_said_to_be(tmp_path):
    """Of 10 s for each measurement and 1 s for a step: at 58 s, 3 s and a quarter of 68 are 20."""
    model, clock = plain_model(), Clock()
    (optimizer,) = sgd(model)
    problem = lg.Problem(model, "cross_entropy", data())
    run = Watch(
        problem,
        [Slow(clock)],
        lg.Record.create(tmp_path),
        Every(5),
        [optimizer],
        budget=Budget(0.25, clock),
        on_error="raise",
    )
    for _ in range(103):
        clock.now += 1.0
        optimizer.step()
    run.close()
    rows = lg.Record.open(tmp_path).rows()
    assert [row["step"] for row in rows if "metric" in row] == [0, 50, 80]
    assert [row for row in rows if "metric" not in row] == [
        {"step": 50, "skipped": 9, "because": "budget"},
        {"step": 80, "skipped": 5, "because": "budget"},
        {"step": 103, "skipped": 4, "because": "budget"},
    ]
    assert run.skipped == 18
    assert "18 due steps not measured, to keep to 0.25 of the time" in str(run)


def measured(share, costs, seconds, step):
    """The times at which a budget allows these costs, along a run of so many steps."""
    clock, costs, times = Clock(), iter(costs), []
    budget = Budget(share, clock)
    while clock.now < seconds:
        if budget.allows():
            with budget.spending():
                times.append(clock.now)
                clock.now += next(costs)
        clock.now += step
    return times, budget.spent / clock.now


def test_a_short_run_is_measured_at_many_steps():
    costs = itertools.chain([0.9], itertools.repeat(0.02))  # the first one cold
    times, _ = measured(0.05, costs, 2.5, 0.02)
    assert len(times) > 30


def test_a_long_run_keeps_to_its_share():
    times, share = measured(0.05, itertools.chain([3.0], itertools.repeat(0.5)), 3600.0, 0.1)
    assert 0.0495 < share < 0.0509  # and three seconds
    assert max(b - a for a, b in itertools.pairwise(times[1:])) < 11.0


def test_without_a_budget_nothing_depends_on_time():
    def never():
        return 1 / 0

    budget = Budget(None, lambda: 0.0)
    budget.clock = never
    assert budget.allows()


@pytest.mark.parametrize("share", [0.0, -1.0, 1.0])
def test_a_budget_is_a_share(tmp_path, share):
    model = plain_model()
    with pytest.raises(ValueError, match="expected budget > 0 and < 1"):
        lg.watch(model, sgd(model), "cross_entropy", data(), tmp_path, budget=share)
    lg.Record.create(tmp_path, resume=True).close()  # nobody is writing there


# Folders


def test_what_cannot_be_measured_is_said_before_training(tmp_path):
    model = plain_model()
    with pytest.raises(ValueError, match="expected outputs"):
        lg.watch(
            model, sgd(model), "cross_entropy", [(torch.ones(2, 4), torch.ones(2, 7))], tmp_path
        )
    with pytest.raises(TypeError, match="expected a torch optimiser, got float"):
        lg.watch(model, 0.1, "cross_entropy", data(), tmp_path)
    with torch.no_grad():
        model[0].weight[0] = math.nan  # which is measured as such
    lg.watch(model, sgd(model), "cross_entropy", data(), tmp_path).close()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"full_batch": "yes"}, "expected full_batch to be True, False or None, got 'yes'"),
        ({"first_step": "a"}, "expected first_step to be the number of a step, got 'a'"),
        ({"every": [1, 5, "a"]}, r"expected every= as a number of steps, .* got \[1, 5, 'a'\]"),
        ({"every": 1.5}, "expected every= as a number of steps, a list of the numbers"),
        ({"colour": 1}, "lossgeom.watch: unknown argument 'colour'; expected autocast, budget"),
        ({"forwards": 1}, "lossgeom.watch: unknown argument 'forwards': did you mean forward"),
    ],
    ids=str,
)
def test_settings_that_do_not_do(tmp_path, settings, message, unchecked):
    model = plain_model()
    with pytest.raises(TypeError, match=message):
        lg.watch(model, sgd(model), "cross_entropy", data(), tmp_path, **settings)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("stepped", "said"), [(0, "SGD stepped, but Adam did"), (None, "did the")])
def test_a_watch_that_saw_no_step_says_so(tmp_path, stepped, said):
    model = plain_model()
    optimizers = [*sgd(model), *adam(model)]
    run = lg.watch(model, optimizers, "cross_entropy", data(), tmp_path, metrics=QUICK)
    run.__enter__()
    if stepped is not None:
        train(model, [optimizers[stepped]], data(6), 2)
    with pytest.warns(UserWarning, match=said):
        run.__exit__(None)
    assert run.record.status == "finished"


def test_a_loss_that_is_maximised_has_no_verdict(tmp_path):
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, maximize=True)
    batches = [(torch.eye(2), torch.ones(2, 1))]
    with lg.watch(model, optimizer, "squared_error", batches, tmp_path, 1, budget=None) as run:
        for x, y in batches * 30:
            optimizer.zero_grad()
            (0.5 * (model(x) - y).square().sum() / 2).backward()
            optimizer.step()
    losses = run.record.series("loss")[1]
    assert losses[-1] > 1e4 * losses[0]
    assert str(run.verdict()).startswith("not stated: the loss is maximised")


def test_goes_on_where_a_run_was_stopped(tmp_path):
    model, settings = plain_model(), {"metrics": QUICK, "budget": None, "every": 2}
    (optimizer,) = sgd(model)
    with lg.watch(model, optimizer, "cross_entropy", data(), tmp_path, **settings):
        train(model, [optimizer], data(), 5)
    with lg.watch(
        model, optimizer, "cross_entropy", data(), tmp_path, first_step=5, **settings
    ) as run:
        assert run.step == 5
        assert str(run).startswith(f"{tmp_path}: SGD, step 5, seen from step 5\nbelow: ")
        train(model, [optimizer], data(), 3)
    assert run.record.series("loss")[0] == [0, 2, 4, 6]
    assert run.record.manifest["watched"]["first_step"] == 5
    assert run.record.status == "finished"


def test_says_what_is_not_measured_again(tmp_path):
    killed_run(tmp_path, 3)
    with pytest.warns(UserWarning, match=r"holds measurements up to step 2, which are not made"):
        killed_run(tmp_path, 5)
    assert lg.Record.open(tmp_path).series("loss")[0] == [0, 2, 4]


def test_another_run_is_refused(tmp_path):
    model = plain_model()
    lg.Record.create(tmp_path, config={"lr": 1.0}).close()
    with pytest.raises(lg.RecordError, match="holds another run"):
        lg.watch(model, sgd(model), "cross_entropy", data(), tmp_path)
    with lg.Record.create(tmp_path, config={"lr": 1.0}, resume=True) as record:
        lg.watch(model, sgd(model), "cross_entropy", data(), record).close()
    assert lg.Record.open(tmp_path).status == "finished"


@pytest.mark.parametrize(
    ("lr", "what"), [(None, r"its loss was 1\."), (0.5, r"its learning rate was 0\.1, and now it")]
)
def test_a_run_that_starts_elsewhere_is_not_added_to_another(tmp_path, lr, what):
    model, _ = killed_run(tmp_path, 3)
    before = (tmp_path / "rows.jsonl").read_bytes(), (tmp_path / "manifest.json").read_bytes()
    model = model if lr is None else plain_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr or 0.1)
    with pytest.warns(UserWarning, match="measurements up to step 2"):
        run = lg.watch(model, optimizer, "cross_entropy", data(), tmp_path, **SECOND)
    message = f"holds another run: at step 0 {what}.*nothing more is measured"
    with pytest.warns(UserWarning, match=message) as warned, run:
        train(model, [optimizer], data(), 4)
    assert ["rows" in str(each.message) for each in warned] == [False]
    assert str(run.verdict()) == "not stated: nothing of this run was measured"
    assert "nothing more is measured: " in str(run)
    assert "rows say why" not in str(run)
    assert before[0] == (tmp_path / "rows.jsonl").read_bytes()
    assert before[1] == (tmp_path / "manifest.json").read_bytes()
    lg.Record.create(tmp_path, resume=True).close()  # nobody is writing there


def test_an_interrupted_run_that_had_been_over_stays_open(tmp_path):
    model = plain_model()
    (optimizer,) = sgd(model)
    for first in (0, 3):
        run = lg.watch(
            model, optimizer, "cross_entropy", data(), tmp_path, first_step=first, **SECOND
        )
        train(model, [optimizer], data(), 3)
        run.__exit__(KeyboardInterrupt if first else None)
    assert lg.Record.open(tmp_path).status == "running"


def test_a_run_that_is_over_is_not_begun_again(tmp_path):
    model = plain_model()
    (optimizer,) = sgd(model)
    with lg.watch(model, optimizer, "cross_entropy", data(), tmp_path, **SECOND):
        train(model, [optimizer], data(), 3)
    before = json.loads((tmp_path / "manifest.json").read_text())
    message = r"holds a run that is over, as 'finished', up to step 2; choose another folder, or"
    with pytest.raises(lg.RecordError, match=message):
        lg.watch(model, optimizer, "cross_entropy", data(), tmp_path, **SECOND)
    lg.watch(model, optimizer, "cross_entropy", data(), tmp_path, first_step=3, **SECOND).close()
    assert json.loads((tmp_path / "manifest.json").read_text()) == before
    with (
        lg.Record.create(tmp_path, resume=True) as record,
        pytest.raises(lg.RecordError, match="holds a run that is over"),
    ):
        lg.watch(model, optimizer, "cross_entropy", data(), record, **SECOND)


@pytest.mark.parametrize("lr", [0.1, 0.05])
def test_what_was_made_after_a_checkpoint_is_superseded(tmp_path, lr, recwarn):
    model, kept = killed_run(tmp_path, 9, checkpoint=4)
    model.load_state_dict(kept)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    settings = {**SECOND, "first_step": 4}
    with lg.watch(model, optimizer, "cross_entropy", data(), tmp_path, **settings) as run:
        train(model, [optimizer], data(), 3)
    assert [str(each.message) for each in recwarn] == []
    record = lg.Record.open(tmp_path)
    assert record.series("loss")[0] == [0, 2, 4, 6]
    rates = {row["step"]: row["lr"] for row in record.rows() if "metric" in row}
    assert rates == {0: 0.1, 2: 0.1, 4: lr, 6: lr}
    assert {step for step, _ in record.measured} == {0, 2, 4, 6}
    assert record.rows() == run.record.rows()
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) > len(record.rows())  # kept


def test_two_watches_supersede_the_same(tmp_path):
    model, kept = killed_run(tmp_path, 9, checkpoint=4)
    model.load_state_dict(kept)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with lg.Record.create(tmp_path, resume=True) as record:
        settings = {"budget": None, "every": 2, "first_step": 4}
        for metric in QUICK:
            lg.watch(
                model, optimizer, "cross_entropy", data(), record, metrics=[metric], **settings
            )
        train(model, [optimizer], data(), 3)
        for metric in QUICK:
            assert record.series(metric.name)[0] == [0, 2, 4, 6]


def test_another_model_at_the_checkpoint_is_another_run(tmp_path):
    killed_run(tmp_path, 9)
    model = plain_model()
    (optimizer,) = sgd(model)
    with (
        pytest.warns(UserWarning, match="holds another run: at step 4 its loss was"),
        lg.watch(model, optimizer, "cross_entropy", data(), tmp_path, first_step=4, **SECOND),
    ):
        train(model, [optimizer], data(), 3)
    assert lg.Record.open(tmp_path).series("loss")[0] == [0, 2, 4, 6, 8]
    assert lg.Record.open(tmp_path).status == "running"


def test_a_run_gone_through_again_supersedes_what_it_does_not_come_to(tmp_path):
    killed_run(tmp_path, 9)
    model = plain_model()
    (optimizer,) = sgd(model)
    with pytest.warns(UserWarning, match="holds measurements up to step 8"):
        run = lg.watch(model, optimizer, "cross_entropy", data(), tmp_path, **SECOND)
    train(model, [optimizer], data(), 4)
    optimizer.param_groups[0]["lr"] = 0.05
    message = (
        "holds another run from step 4 on, where its learning rate was 0.1, and now it is 0.05"
    )
    with pytest.warns(UserWarning, match=message):
        train(model, [optimizer], data(), 3)
    run.close()
    rows = [row for row in lg.Record.open(tmp_path).rows() if row.get("metric") == "loss"]
    found = [(row["step"], row["lr"]) for row in rows]
    assert found == [(0, 0.1), (2, 0.1), (4, 0.05), (6, 0.05)]


def test_parameters_that_another_optimiser_has_are_noted(tmp_path):
    class Own(torch.optim.Optimizer):
        def step(self):
            pass

    model = plain_model()
    part = Own([model[0].weight], {"lr": 0.1})
    with pytest.warns(UserWarning, match=r"0\.bias and 2 more of the parameters are updated by no"):
        run = lg.watch(model, part, "cross_entropy", data(), tmp_path, metrics=QUICK, every=[])
    run.close()
    (note,) = lg.Record.open(tmp_path).for_report.notes
    assert "pass all optimisers as a list" in note
    known = torch.optim.SGD([model[0].weight], lr=0.1)
    with pytest.raises(ValueError, match="or pass all of the model's optimisers as a list"):
        lg.watch(model, known, "cross_entropy", data(), tmp_path / "a")


def test_arguments_of_another_kind(tmp_path, unchecked):
    model = plain_model()
    (optimizer,) = sgd(model)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    ratio = lg.metrics.EdgeRatio
    for other, settings, message in (
        (
            optimizer,
            {"metrics": ratio()},
            r"got EdgeRatio\(.*; put it into \[\]",
        ),
        (optimizer, {"metrics": [ratio]}, r"got <class .*EdgeRatio'>; add \(\) to make one"),
        (schedule, {}, "got StepLR; pass the optimiser that it schedules"),
    ):
        with pytest.raises(TypeError, match=message):
            lg.watch(model, other, "cross_entropy", data(), tmp_path, **settings)


# What it says


def test_a_run_that_is_too_short_for_its_budget_says_so(tmp_path):
    record = lg.Record.create(tmp_path)
    record.append({"step": 0, "metric": "edge_ratio", "value": 0.5})
    record.append({"step": 9, "skipped": 4, "because": "budget"})
    assert str(lg.verdict_of(tmp_path, full_batch=True)).endswith(
        "; it takes 3, and 4 due steps were left out for the budget; budget=None has all"
    )
    assert "budget" not in str(lg.verdict_of(str(tmp_path)))  # it is not for that


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_line_lives_on_a_terminal(tmp_path, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    model = plain_model()
    (optimizer,) = sgd(model)
    settings = {"metrics": QUICK[:1], "budget": None, "full_batch": True}
    with lg.watch(model, optimizer, "cross_entropy", data(), tmp_path, 2, **settings) as run:
        train(model, [optimizer], data(), 3)
    first, second, end = terminal.getvalue().split("\r\x1b[K")[1:]
    assert first.startswith("step 0: loss 1.")
    assert second.startswith("step 2: loss 1.")
    assert end == f"{run}\n"
    assert str(run).startswith(f"{tmp_path}: SGD, step 3\nmeasured at step 2: loss 1.")


def test_nothing_is_written_elsewhere(tmp_path, capfd):
    model = plain_model()
    (optimizer,) = sgd(model)
    with lg.watch(model, optimizer, "cross_entropy", data(), tmp_path, metrics=QUICK):
        train(model, [optimizer], data(), 1)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def test_a_terminal_that_is_gone_ends_nothing():
    terminal = Terminal()
    terminal.close()
    LiveLine(terminal).show("step 0")
    LiveLine(terminal).end("the end")


def test_a_line_is_cut_and_holds_no_escapes():
    terminal = Terminal()
    LiveLine(terminal).show("a\x1b[2J" + "b" * 200)
    assert terminal.getvalue() == "\r\x1b[Ka\\x1b[2J" + "b" * 89 + "..."


# A loop as people write them


class Own(torch.optim.SGD):
    """Someone's own descent, which clips and calls its superclass."""

    def step(self, closure=None):
        for group in self.param_groups:
            nn.utils.clip_grad_norm_(group["params"], 1.0)
        return super().step(closure)


def test_a_loop_with_everything_is_watched(tmp_path):
    model = noisy_model()
    optimizer = Own(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    x, y = data(40)[0]
    mixed = list(zip(x.split([16, 16, 8]), y.split([16, 16, 8]), strict=True))
    rates = []

    def loop():
        with lg.watch(model, optimizer, "cross_entropy", mixed, tmp_path, 2, budget=None) as run:
            for epoch in range(4):
                for i, (x, y) in enumerate(mixed):
                    optimizer.zero_grad()
                    loss = nn.functional.cross_entropy(model(x), y)
                    if epoch == 2:
                        if i == 0:
                            continue
                        raise ZeroDivisionError("in the middle")
                    loss.backward()
                    nn.utils.clip_grad_norm_(model.parameters(), 0.5)
                    rates.append(optimizer.param_groups[0]["lr"])
                    optimizer.step()
                schedule.step()
            return run

    with pytest.raises(ZeroDivisionError, match="in the middle"):
        loop()
    record = lg.Record.open(tmp_path)
    assert record.status == "failed"
    rows = [row for row in record.rows() if row["metric"] == "loss"]
    assert [row["step"] for row in rows] == [0, 2, 4]
    assert [row["lr"] for row in rows] == rates[::2]
    assert {row["status"] for row in record.rows()} <= {"ok", "undefined", "not_converged"}
    assert record.manifest["watched"]["full_batch"] is False
    assert lg.verdict_of(record).kind == "not stated"
    assert not optimizer._optimizer_step_pre_hooks


class Named(torch.optim.SGD):
    """A subclass that steps as its superclass does."""


def test_a_loop_at_the_edge_is_said_to_be(tmp_path):
    """On all data, in batches of mixed sizes; one pass fails, and the last ones are not made."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(40, 6, generator=generator)
    y = torch.sin(2 * x @ torch.randn(6, 2, generator=generator))
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 2))
    optimizer = Named(model.parameters(), lr=0.6)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.8, total_iters=300)
    batches = list(zip(x.split([20, 15, 5]), y.split([20, 15, 5]), strict=True))
    metrics = [lg.metrics.Loss(), lg.metrics.EdgeRatio()]

    def loop():
        for i in range(1000):
            optimizer.zero_grad()
            try:
                for inputs, targets in batches:
                    (0.5 * (model(inputs) - targets).square().sum() / 40).backward()
                if i == 10:
                    raise ArithmeticError
            except ArithmeticError:
                continue
            nn.utils.clip_grad_norm_(model.parameters(), 10.0)
            optimizer.step()
            schedule.step()
            if i == 180:
                break

    with lg.watch(
        model, optimizer, "squared_error", batches, tmp_path, 10, metrics=metrics, budget=None
    ) as run:
        loop()
    assert run.step == 180
    verdict = run.verdict()
    assert verdict.kind == "at the edge"
    assert 30 <= verdict.since <= 100
    assert f"at the edge since step {verdict.since}: sharpness " in str(run)
    assert run.record.manifest["watched"] == {
        "optimizers": ["Named"],
        "first_step": 0,
        "budget": None,
        "formula": "2/lr",
        "matrix": "Hessian",
        "status": "ok",
        "instead": None,
        "unknown": [],
        "full_batch": True,
        "maximized": False,
    }
