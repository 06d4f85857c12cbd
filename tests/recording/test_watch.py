"""Watching the steps of live optimisers."""

import copy
import errno
import gc
import math
import pickle
import shutil
import warnings
import weakref

import pytest
import torch
from torch import nn

import lossgeom as lg
from lossgeom.metrics import Step
from lossgeom.recording.optimizer_hooks import Steps


def setup(dtype=torch.float64):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).to(dtype)
    batches = [(torch.randn(8, 4, dtype=dtype), torch.randint(3, (8,)))]
    return model, batches, lg.Problem(model, "cross_entropy", batches)


def backward(model, batches):
    """The gradient of the mean loss of some batches."""
    model.zero_grad()
    for x, y in batches:
        (nn.functional.cross_entropy(model(x), y) / len(batches)).backward()


def steps_of(optimizer, n):
    for _ in range(n):
        optimizer.step()


def theta_of(model):
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()]).clone()


class Taken:
    """A metric that keeps the steps that it is given."""

    name = "taken"

    def __init__(self):
        self.steps = []

    def of_step(self, step):
        self.steps.append(step)
        return lg.Estimate(float(len(self.steps)))


class Broken:
    name = "broken"

    def __init__(self, error=None):
        self.error = error or ZeroDivisionError("of one's own")

    def __call__(self, problem):
        raise self.error


def attached(problem, path, *optimizers, metrics=None, every=1, **settings):
    """A watch that raises what goes wrong, its record, and the metric that keeps steps."""
    taken = Taken()
    tracker = lg.Tracker(problem, metrics or [taken], lg.Record.create(path), every=every)
    settings.setdefault("on_error", "raise")
    return tracker.attach(*optimizers, **settings), taken


def test_a_step_is_where_it_started_what_it_changed_and_its_gradient(tmp_path):
    model, batches, problem = setup()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    run, taken = attached(problem, tmp_path, optimizer, every=2)
    thetas, gradients = [], []
    for _ in range(5):
        thetas.append(theta_of(model))
        backward(model, batches)
        gradients.append(torch.cat([p.grad.reshape(-1) for p in model.parameters()]))
        optimizer.step()
    thetas.append(theta_of(model))
    run.close()
    assert run.step == 5
    assert len(taken.steps) == 3
    for i, step in zip((0, 2, 4), taken.steps, strict=True):
        assert isinstance(step, Step)
        assert torch.equal(step.before.theta, thetas[i])
        assert torch.equal(step.update, thetas[i + 1] - thetas[i])
        assert torch.equal(step.gradient, gradients[i])
        assert step.state.kinds == ("SGD",)
    rows = lg.Record.open(tmp_path).rows()
    assert [row["step"] for row in rows if row["metric"] == "taken"] == [0, 2, 4]


def test_rows_have_the_edge_of_their_metric(tmp_path):
    model, batches, problem = setup()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.5)
    m = lg.metrics
    metrics = [m.Sharpness(), m.CriticalStep(), m.CriticalSharpness(), m.BatchSharpness()]
    run, _ = attached(problem, tmp_path, optimizer, metrics=[*metrics, m.GradientNorm()])
    with run:
        backward(model, batches)
        optimizer.step()
    found = {row["metric"]: row["threshold"] for row in run.record.rows()}
    assert [found[each.name] for each in metrics] == [pytest.approx(6), 1, 4, None]
    assert found["gradient_norm"] is None


@pytest.mark.quick
def test_rows_have_the_learning_rate_that_a_step_was_made_with(tmp_path):
    model, batches, problem = setup()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=3)
    metrics = [lg.metrics.Loss(), lg.metrics.Sharpness()]
    run, _ = attached(problem, tmp_path, optimizer, metrics=metrics)
    with run:
        for _ in range(4):
            backward(model, batches)
            optimizer.step()
            schedule.step()
    found = lg.Record.open(tmp_path).rows()
    assert {row["threshold"] for row in found if row["metric"] == "loss"} == {None}
    rows = [row for row in found if row["metric"] == "sharpness"]
    assert [row["lr"] for row in rows] == pytest.approx([1, 2 / 3, 1 / 3, 0])
    assert [row["threshold"] for row in rows] == pytest.approx([2, 3, 6, math.inf])


def test_what_is_kept_for_the_next_step_is_there(tmp_path):
    model, _, problem = setup()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)

    class Counting:
        name = "counting"

        def of_step(self, step):
            step.memory["times"] = step.memory.get("times", 0) + 1
            return lg.Estimate(float(step.memory["times"]))

    run, _ = attached(problem, tmp_path, optimizer, metrics=[Counting()])
    for _ in range(3):
        optimizer.step()
    assert run.record.series("counting") == ([0, 1, 2], [1.0, 2.0, 3.0])


# Optimisers


def test_several_optimisers_are_one_step(tmp_path):
    model, batches, problem = setup()
    first = torch.optim.SGD(model[0].parameters(), lr=0.5)
    last = torch.optim.SGD(model[2].parameters(), lr=0.25)
    run, taken = attached(problem, tmp_path, first, last, every=2)
    for _ in range(3):
        start = theta_of(model)
        backward(model, batches)
        first.step(), last.step()
    assert run.step == 3
    assert torch.equal(taken.steps[-1].before.theta, start)
    assert torch.equal(taken.steps[-1].update, theta_of(model) - start)
    rates = torch.tensor([0.5] * 25 + [0.25] * 18).double()
    torch.testing.assert_close(taken.steps[-1].update, -rates * taken.steps[-1].gradient)


def test_optimisers_in_another_order_are_said_to_be(tmp_path):
    model, batches, problem = setup()
    first = torch.optim.SGD(model[0].parameters(), lr=0.5)
    last = torch.optim.SGD(model[2].parameters(), lr=0.25)
    attached(problem, tmp_path, last, first)
    backward(model, batches)
    with pytest.warns(UserWarning, match="pass optimisers in the order in which they step"):
        first.step()
    last.step()
    first.step()  # no second warning


def test_accumulated_gradients_are_one_step(tmp_path):
    model, batches, problem = setup()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    run, taken = attached(problem, tmp_path, optimizer)
    for i in range(6):
        x, y = batches[0]
        nn.functional.cross_entropy(model(x), y).backward()
        if i % 2:
            optimizer.step(), optimizer.zero_grad()
    assert run.step == 3
    torch.testing.assert_close(taken.steps[2].update, -0.5 * taken.steps[2].gradient)
    assert run.record.series("gradient_cosine")[1] == pytest.approx([1, 1, 1])


def test_a_closure_of_which_all_is_known_gives_the_gradient(tmp_path):
    model, batches, problem = setup()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    _, taken = attached(problem, tmp_path, optimizer)

    def closure():
        backward(model, batches)

    for _ in range(2):
        optimizer.step(closure=closure)
    torch.testing.assert_close(taken.steps[1].update, -0.5 * taken.steps[1].gradient)
    torch.testing.assert_close(taken.steps[1].gradient, taken.steps[1].before.gradient())


def test_running_averages_are_those_after_the_forward_pass_that_a_closure_makes(tmp_path):
    """As they are in a loop without a closure, where it is over before the step begins."""
    told = []
    for closure in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
        optimizer, x = torch.optim.SGD(model.parameters(), lr=0.1), torch.randn(8, 4)

        def forward_and_backward(model=model, optimizer=optimizer, x=x):
            optimizer.zero_grad()
            loss = model(x).square().sum()
            loss.backward()
            return loss

        problem = lg.Problem(model, "squared_error", [(x, torch.ones(8, 3))], mode="eval")
        record = lg.Record.create(tmp_path / str(closure))
        with lg.Tracker(problem, [lg.metrics.Loss()], record).attach(optimizer):
            for _ in range(2):
                if closure:
                    optimizer.step(forward_and_backward)
                else:
                    forward_and_backward()
                    optimizer.step()
        told.append(record.series("loss"))
    assert told[0] == told[1]


@pytest.mark.parametrize("kind", ["LBFGS", "own"])
def test_a_closure_that_may_be_called_anywhere_gives_no_gradient(tmp_path, kind):
    class Own(torch.optim.SGD):
        pass

    model, batches, problem = setup()
    make = {"LBFGS": torch.optim.LBFGS, "own": Own}[kind]
    optimizer = make(model.parameters(), lr=0.1)
    run, taken = attached(problem, tmp_path, optimizer, on_error="record")
    calls = []

    def closure():
        backward(model, batches)
        calls.append(None)
        x, y = batches[0]
        return nn.functional.cross_entropy(model(x), y)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(2):
            optimizer.step(closure)
    assert run.step == 2
    assert len(calls) > 2 or kind == "own"
    assert all(step.gradient is None for step in taken.steps)
    assert "gradient_cosine" not in {row["metric"] for row in run.record.rows()}
    assert run.record.manifest["watched"]["full_batch"] is None


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_a_scaler_leaves_out_is_not_measured(tmp_path, fused):
    model, batches, problem = setup(torch.float32)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, fused=fused)
    run, taken = attached(problem, tmp_path, optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for i in range(3):
        optimizer.zero_grad()
        x, y = batches[0]
        loss = nn.functional.cross_entropy(model(x), y)
        scaler.scale(loss * (math.inf if i == 1 else 1.0)).backward()
        scaler.step(optimizer)
        scaler.update()
    assert len(taken.steps) == 2
    assert run.step == (3 if fused else 2)  # the fused one is called, and does nothing
    for step in taken.steps:
        torch.testing.assert_close(step.gradient, step.before.gradient())
        torch.testing.assert_close(step.update, -0.5 * step.gradient)


class Plain(torch.optim.Optimizer):
    """Gradient descent, of a kind that nobody knows; it may fail."""

    fails = False

    def __init__(self, params, lr=0.5):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                p.add_(p.grad, alpha=-group["lr"])
                if self.fails:
                    raise ZeroDivisionError


class Twice(torch.optim.SGD):
    """As people write them: torch calls its hooks in either of the two steps."""

    fails = False

    def step(self, closure=None):
        super().step(closure)
        if self.fails:
            raise ZeroDivisionError


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_a_step_without_gradients_around_it_is_measured(tmp_path, context):
    model, batches, problem = setup()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    metrics = [lg.metrics.Sharpness(), lg.metrics.UpdateCurvature(), lg.metrics.RealisedEdge()]
    run, _ = attached(problem, tmp_path, optimizer, metrics=metrics)
    backward(model, batches)
    expected = lg.sharpness(problem).value
    with context():
        optimizer.step()
    assert run.last["sharpness"].value == pytest.approx(expected)
    assert {row["status"] for row in run.record.rows()} == {"ok"}


def test_a_compiled_step_is_seen(tmp_path):
    model, batches, problem = setup()
    optimizer = Plain(model.parameters())
    run, taken = attached(problem, tmp_path, optimizer, every=2)
    step = torch.compile(lambda: optimizer.step(), backend="eager")
    for _ in range(3):
        backward(model, batches)
        step()
    assert run.step == 3
    assert len(taken.steps) == 2
    torch.testing.assert_close(taken.steps[1].update, -0.5 * taken.steps[1].gradient)


@pytest.mark.parametrize("kind", [Plain, Twice])
def test_a_step_that_raises_leaves_nothing_behind(tmp_path, kind):
    model, batches, problem = setup()
    optimizer = kind(model.parameters(), lr=0.5)
    run, taken = attached(problem, tmp_path, optimizer)
    backward(model, batches)
    optimizer.fails = True
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            optimizer.step()
    assert run.step == 0
    with torch.no_grad():
        model[0].weight.add_(1.0)
    optimizer.fails = False
    for i in range(2):
        start = theta_of(model)
        backward(model, batches)
        optimizer.step()
        assert run.step == i + 1
        assert torch.equal(taken.steps[i].before.theta, start)
        torch.testing.assert_close(taken.steps[i].gradient, taken.steps[i].before.gradient())


class Accelerated(torch.optim.Optimizer):
    """As in accelerate, which refuses hooks on what wraps an optimiser."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    def step(self):
        self.optimizer.step()

    def register_step_post_hook(self, hook):
        raise AttributeError


AcceleratedOptimizer = type("AcceleratedOptimizer", (Accelerated,), {})


def test_an_optimiser_that_is_wrapped_is_taken_out(tmp_path):
    model, batches, problem = setup()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    wrapped = AcceleratedOptimizer(optimizer)
    run, taken = attached(problem, tmp_path, wrapped)
    backward(model, batches)
    wrapped.step()
    assert len(taken.steps) == 1
    assert run.optimizers == (optimizer,)
    assert run.record.manifest["watched"]["optimizers"] == ["SGD"]


def test_parameters_that_are_trained_later_are_measured_then(tmp_path):
    model, batches, _ = setup()
    model[0].requires_grad_(False)
    problem = lg.Problem(model, "cross_entropy", batches)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    metrics = [lg.metrics.EdgeRatio(), lg.metrics.UpdateCurvature()]
    run, _ = attached(problem, tmp_path, optimizer, metrics=metrics)
    for trained in (False, True, True):
        model[0].requires_grad_(trained)
        backward(model, batches)
        optimizer.step()
    rows = [row for row in run.record.rows() if row["metric"] == "update_curvature"]
    assert {row["status"] for row in run.record.rows()} == {"ok"}
    assert rows[1]["value"] > rows[0]["value"]


def test_numbers_of_another_mode_beside_thresholds_are_said_to_be(tmp_path):
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    batches = [(torch.randn(9, 3), torch.randint(2, (9,)))]
    problem = lg.Problem(model, "cross_entropy", batches)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    run, _ = attached(problem, tmp_path, optimizer, metrics=[lg.metrics.Loss()], full_batch=False)
    with pytest.warns(UserWarning, match="thresholds of training beside rows, measured in mode="):
        optimizer.step()
    optimizer.step()  # no second warning
    assert run.record.for_report.thresholds_caution == problem.unset_mode


def test_an_optimiser_of_which_no_threshold_is_known_has_none(tmp_path):
    model, batches, problem = setup()
    optimizer = Plain(model.parameters())
    metrics = [lg.metrics.EdgeRatio(), lg.metrics.UpdateCurvature()]
    run, _ = attached(problem, tmp_path, optimizer, metrics=metrics)
    backward(model, batches)
    optimizer.step()
    ratio, curvature, _ = run.record.rows()
    assert (ratio["status"], ratio["lr"], ratio["threshold"]) == ("undefined", 0.5, 1.0)
    assert "no threshold to compare with: none is known of Plain" in ratio["message"]
    assert curvature["status"] == "ok"
    watched = run.record.manifest["watched"]
    assert watched["status"] == "unknown"
    assert "update_curvature" in watched["instead"]
    assert watched["unknown"] == ["Plain"]
    said = str(run)
    assert "\nmeasured at step 0: update curvature " in said
    assert "nan" not in said  # of the edge ratio


def test_rows_say_that_their_threshold_is_nominal(tmp_path):
    model, batches, problem = setup()
    optimizer = torch.optim.Adam(model.parameters(), betas=(0.0, 0.999))
    run, _ = attached(problem, tmp_path, optimizer, metrics=[lg.metrics.Loss()])
    backward(model, batches)
    steps_of(optimizer, 12)
    rows = [row for row in run.record.rows() if row["metric"] == "loss"]
    assert [row["step"] for row in rows if row.get("nominal")] == list(range(9))
    assert run.record.manifest["watched"]["status"] == "ok"


# Errors


def test_an_error_in_a_metric_is_a_row_and_one_warning(tmp_path):
    model, batches, problem = setup()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    metrics = [Broken(), lg.metrics.Loss()]
    run, _ = attached(problem, tmp_path, optimizer, metrics=metrics, on_error="record")
    backward(model, batches)
    said = (
        r"broken could not be measured at step 0 \(ZeroDivisionError: of one's own\); training goes"
    )
    with pytest.warns(UserWarning, match=said) as caught:
        steps_of(optimizer, 3)
    assert len(caught) == 1
    rows = [row for row in run.record.rows() if row["metric"] == "broken"]
    assert [(row["status"], row["message"]) for row in rows] == [
        ("failed", "ZeroDivisionError: of one's own")
    ] * 3
    assert all(math.isnan(row["value"]) for row in rows)
    assert run.record.series("loss")[0] == [0, 1, 2]
    assert run.failures == 3
    assert "3 measurements failed; rows say why" in str(run)


def test_an_error_is_raised_where_that_is_asked_for(tmp_path):
    model, _, problem = setup()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    attached(problem, tmp_path, optimizer, metrics=[Broken()])
    with pytest.raises(ZeroDivisionError, match="of one's own"):
        optimizer.step()


def test_ctrl_c_passes(tmp_path):
    model, _, problem = setup()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    metrics = [Broken(KeyboardInterrupt())]
    run, _ = attached(problem, tmp_path, optimizer, metrics=metrics, on_error="record", every=2)
    with pytest.raises(KeyboardInterrupt):
        optimizer.step()
    optimizer.step()
    assert run.step == 2


def test_a_loss_that_is_not_finite_is_a_result(tmp_path):
    model, batches, problem = setup()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    with torch.no_grad():
        model[0].weight.fill_(math.nan)
    metrics = [lg.metrics.Loss(), lg.metrics.Sharpness()]
    run, _ = attached(problem, tmp_path, optimizer, metrics=metrics)
    backward(model, batches)
    optimizer.step()
    rows = run.record.rows()
    assert [row["status"] for row in rows] == ["nonfinite"] * 3
    assert run.failures == 0


def test_a_model_that_cannot_be_copied_any_more_is_a_row(tmp_path):
    model, _, problem = setup()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    run, _ = attached(problem, tmp_path, optimizer, on_error="record")
    model.generator = (i for i in range(3))
    with pytest.warns(UserWarning, match="could not be measured at step 0"):
        optimizer.step()
    (row,) = run.record.rows()
    assert row["status"] == "failed"
    assert "could not be copied" in row["message"]
    assert run.step == 1


def test_an_optimiser_that_cannot_be_read_any_more_is_a_row(tmp_path):
    model, batches, problem = setup()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    run, taken = attached(problem, tmp_path, optimizer, on_error="record")
    backward(model, batches)
    optimizer.step()
    del optimizer.param_groups[0]["params"][0]
    with pytest.warns(UserWarning, match="the step could not be measured at step 1"):
        optimizer.step()
    _, row = run.record.rows()[-2:]
    assert (row["step"], row["status"]) == (1, "failed")
    assert "0.weight is not among its parameters" in row["message"]
    assert len(taken.steps) == 1


def test_a_record_that_is_over_ends_no_training(tmp_path):
    model, _, problem = setup()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    run, _ = attached(problem, tmp_path, optimizer, on_error="record")
    run.record.finish()
    with pytest.warns(UserWarning, match="was opened for reading, or is closed"):
        steps_of(optimizer, 3)
    run.close()
    assert lg.Record.open(tmp_path).status == "finished"


def test_a_disk_that_is_full_ends_no_training(tmp_path, monkeypatch):
    model, batches, problem = setup()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    run, taken = attached(problem, tmp_path, optimizer, on_error="record")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    backward(model, batches)
    optimizer.step()
    with warnings.catch_warnings(record=True, action="always") as caught, run:
        with monkeypatch.context() as patch:
            patch.setattr("lossgeom.recording.storage.append_line", full)
            steps_of(optimizer, 2)
        optimizer.step()
        monkeypatch.setattr("lossgeom.recording.storage.write_json", full)
    assert [str(each.message)[:40] for each in caught] == [
        "the step could not be measured at step 1",
        f"{tmp_path} is not finished: OSError: "[:40],
    ]
    assert len(taken.steps) == 4
    assert run.record.series("taken")[0] == [0, 3]
    assert not optimizer._optimizer_step_pre_hooks
    lg.Record.create(tmp_path, resume=True).close()  # nobody is writing there


def test_a_folder_that_is_gone_ends_no_training(tmp_path):
    model, batches, problem = setup()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    run, taken = attached(problem, tmp_path / "a", optimizer, on_error="record")
    backward(model, batches)
    with warnings.catch_warnings(record=True, action="always") as caught, run:
        shutil.rmtree(tmp_path / "a")
        steps_of(optimizer, 3)
    assert len(taken.steps) == 1  # what cannot be written is not measured
    first, last = (str(each.message) for each in caught)
    assert first.startswith(f"the step could not be measured at step 0 (RecordError: {tmp_path}")
    assert last.startswith(f"{tmp_path / 'a'} is not finished: RecordError: ")


def test_a_schedule_that_raises_ends_no_training(tmp_path):
    model, _, problem = setup()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    run, _ = attached(problem, tmp_path, optimizer, on_error="record", every=lambda n: 1 // (n - 1))
    with pytest.warns(UserWarning, match="the schedule could not be measured at step 1"):
        steps_of(optimizer, 3)
    assert run.step == 3


def test_arguments_that_do_not_do(tmp_path, unchecked):
    model, _, problem = setup()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    with lg.Record.create(tmp_path) as record:
        tracker = lg.Tracker(problem, [lg.metrics.Loss()], record)
        with pytest.raises(ValueError, match="expected on_error to be 'record' or 'raise', got 1"):
            tracker.attach(optimizer, on_error=1)
        with pytest.raises(ValueError, match="expected at least one optimiser to watch, got none"):
            tracker.attach()
        with pytest.raises(TypeError, match="expected a torch optimiser, got int"):
            tracker.attach(3)
        with pytest.raises(ValueError, match="expected first_step of at least 0, got -1"):
            tracker.attach(optimizer, first_step=-1)
        with pytest.raises(TypeError, match="expected first_step to be the number of a step, got"):
            tracker.attach(optimizer, first_step="a")
        with pytest.raises(TypeError, match="expected full_batch to be True, False or None, got"):
            tracker.attach(optimizer, full_batch="yes")
    assert not optimizer._optimizer_step_pre_hooks


def test_an_optimiser_of_a_part_is_refused_at_once(tmp_path):
    model, _, problem = setup()
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.5)
    with pytest.raises(ValueError, match=r"2\.weight is not among its parameters"):
        attached(problem, tmp_path, optimizer)
    assert not optimizer._optimizer_step_pre_hooks
    _, taken = attached(problem.with_parameters("0.*"), tmp_path / "part", optimizer)
    optimizer.step()
    assert taken.steps[0].update.shape == (25,)


def test_a_metric_of_steps_is_not_measured_without_one(tmp_path):
    _, _, problem = setup()
    tracker = lg.Tracker(problem, [Taken()], lg.Record.create(tmp_path))
    with pytest.raises(TypeError, match=r"taken measures a step of an optimiser, and none was"):
        tracker(0)


@pytest.mark.quick
def test_rows_with_and_without_a_threshold_are_read(tmp_path):
    record = lg.Record.create(tmp_path)
    row = {"step": 0, "metric": "loss", "value": 1.0}
    record.append(row)
    record.append({**row, "lr": None, "threshold": math.inf})
    assert record.rows() == [row, {**row, "lr": None, "threshold": math.inf}]
    for key in ("lr", "threshold"):
        with pytest.raises(ValueError, match=f"expected a number at {key}, found 'fast'"):
            record.append({**row, key: "fast"})
    with pytest.raises(ValueError, match=r"expected true or false at watched\.full_batch, found"):
        record.update(watched={"optimizers": ["SGD"], "full_batch": "maybe"})


# The end


@pytest.mark.filterwarnings("ignore:no step of")
def test_hooks_are_gone_afterwards(tmp_path):
    model, _, problem = setup()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    run, _ = attached(problem, tmp_path, optimizer)
    with run:
        assert optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    optimizer.step()
    assert run.step == 0
    assert lg.Record.open(tmp_path).status == "finished"


def test_one_run_may_be_watched_twice(tmp_path):
    model, batches, problem = setup()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    outer, twice = attached(problem, tmp_path / "a", optimizer)
    backward(model, batches)
    with outer:
        inner, each = attached(problem, tmp_path / "b", optimizer, every=2)
        with inner:
            steps_of(optimizer, 3)
        optimizer.step()
    assert outer.record.series("taken")[0] == [0, 1, 2, 3]
    assert inner.record.series("taken")[0] == [0, 2]
    for i, step in enumerate(each.steps):
        assert torch.equal(step.update, twice.steps[2 * i].update)


def test_nothing_of_training_is_kept_afterwards(tmp_path):
    """Neither copies, nor what a step that was not made began, nor the hooks' optimiser."""
    model, batches, problem = setup()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    kept = []

    class Keeping(Taken):
        def of_step(self, step):
            kept[:] = [weakref.ref(step), weakref.ref(step.before), weakref.ref(step.update)]
            step.memory["vector"] = step.update.clone()
            kept.append(weakref.ref(step.memory["vector"]))
            return lg.Estimate(1.0)

    run, _ = attached(problem, tmp_path, optimizer, metrics=[Keeping()])
    backward(model, batches)
    optimizer.step()
    run.close()
    gc.collect()
    assert [each() for each in kept] == [None] * 4
    watched = weakref.ref(optimizer)
    del optimizer, run
    gc.collect()
    assert watched() is None


def test_copies_of_an_optimiser_are_not_watched(tmp_path):
    model, batches, problem = setup()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    alone = pickle.dumps(optimizer)
    run, _ = attached(problem, tmp_path, optimizer)
    assert pickle.dumps(optimizer) == alone
    copied = copy.deepcopy(optimizer)
    assert not copied._optimizer_step_pre_hooks
    backward(model, batches)
    copied.step()
    assert run.step == 0


@pytest.mark.parametrize(
    ("error", "status"), [(ZeroDivisionError, "failed"), (KeyboardInterrupt, "running")]
)
def test_a_block_that_raises_says_so(tmp_path, error, status):
    model, _, problem = setup()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)

    def train():
        with attached(problem, tmp_path, optimizer)[0]:
            optimizer.step()
            raise error

    with pytest.raises(error):
        train()
    assert not optimizer._optimizer_step_pre_hooks
    assert lg.Record.open(tmp_path).status == status
    assert len(lg.Record.open(tmp_path).rows()) == 1


def test_nothing_is_looked_at_when_nothing_is_due():
    class Nobody:
        def wants(self, step):
            return False

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    steps = Steps([optimizer], Nobody(), first=7)
    optimizer.step()
    assert steps.number == 8
    steps.take_off()
    optimizer.step()
    assert steps.number == 8
