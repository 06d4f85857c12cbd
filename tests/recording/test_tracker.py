import math
import re

import pytest
import torch
from torch import nn

import lossgeom as lg
from lossgeom.lab.training import gradient_descent
from lossgeom.recording.schedule import At, Every, Logarithmic, as_schedule
from lossgeom.report import render
from tests import reference


def setup():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    batches = [(torch.randn(8, 4), torch.randint(3, (8,)))]
    return model, batches, lg.Problem(model, "cross_entropy", batches)


METRICS = [lg.metrics.Loss(), lg.metrics.Sharpness(), lg.metrics.JacobianNorm()]


def test_measures_the_model_as_it_is_at_that_step(tmp_path):
    model, batches, problem = setup()
    record = lg.Record.create(tmp_path)
    tracker = lg.Tracker(problem, METRICS, record, every=3)
    expected = {}
    for step in gradient_descent(model, "cross_entropy", batches, lr=0.5, steps=7):
        if step % 3 == 0:
            expected[step] = lg.Problem(model, "cross_entropy", batches).loss()
        estimates = tracker(step)
        assert bool(estimates) == (step % 3 == 0)
    steps, values = record.series("loss")
    assert dict(zip(steps, values, strict=True)) == expected
    row = record.rows()[1]
    assert row["metric"] == "sharpness"
    assert row["status"] == "ok"
    assert row["matvecs"] > 0
    assert row["residual"] <= 1e-3 * abs(row["value"])
    assert record.manifest["parameters"] == 43


def test_training_is_the_same_with_and_without_it(tmp_path, unchecked):
    finals = []
    for track in (False, True):
        model, batches, problem = setup()
        model[1].train()
        tracker = lg.Tracker(problem, METRICS, lg.Record.create(tmp_path / str(track)))
        for step in gradient_descent(model, "cross_entropy", batches, lr=0.5, steps=5):
            before = reference.fingerprint(model)
            if track:
                tracker(step)
            assert reference.fingerprint(model) == before
        finals.append(torch.cat([p.detach().reshape(-1) for p in model.parameters()]))
    assert torch.equal(*finals)


@pytest.mark.quick
def test_what_is_recorded_is_not_measured_again(tmp_path):
    _, _, problem = setup()

    class Counting:
        name = "counting"
        calls = 0

        def __call__(self, problem):
            Counting.calls += 1
            return lg.Estimate(1.0)

    for _ in range(2):
        with lg.Record.create(tmp_path, resume=True) as record:
            tracker = lg.Tracker(problem, [Counting()], record)
            for step in range(3):
                tracker(step)
    assert Counting.calls == 3
    assert len(lg.Record.open(tmp_path).rows()) == 3


def test_two_rhythms_on_one_record(tmp_path):
    _, _, problem = setup()
    record = lg.Record.create(tmp_path)
    often = lg.Tracker(problem, [lg.metrics.Loss()], record, every=1)
    seldom = lg.Tracker(problem, [lg.metrics.Sharpness()], record, every=[0, 3])
    for step in range(4):
        often(step), seldom(step)
    assert record.series("loss")[0] == [0, 1, 2, 3]
    assert record.series("sharpness")[0] == [0, 3]


def test_divergence_is_a_result(tmp_path):
    model, _, problem = setup()
    with torch.no_grad():
        model[0].weight.fill_(math.inf)
    record = lg.Record.create(tmp_path)
    lg.Tracker(problem, METRICS, record)(0)
    assert [row["status"] for row in record.rows()] == ["nonfinite"] * 3
    assert all(math.isnan(row["value"]) for row in record.rows())
    assert "NaN or infinite" in record.rows()[0]["message"]


def test_rows_before_an_error_are_kept(tmp_path):
    _, _, problem = setup()
    metrics = [lg.metrics.Loss(), lg.metrics.Accuracy(ignore_index=0)]
    bad = lg.Tracker(problem, metrics, lg.Record.create(tmp_path))
    problem.batches[0][1].zero_()
    with pytest.raises(ValueError, match="all of them are ignored"):
        bad(0)
    assert [row["metric"] for row in bad.record.rows()] == ["loss"]


def test_metrics_need_different_names(tmp_path):
    _, _, problem = setup()
    with pytest.raises(ValueError, match="expected metrics of different names"):
        lg.Tracker(problem, [lg.metrics.Loss(), lg.metrics.Loss()], lg.Record.create(tmp_path))


def test_goes_on_with_the_same_problem_only(tmp_path):
    _, batches, problem = setup()
    with lg.Record.create(tmp_path, resume=True) as record:
        lg.Tracker(problem, METRICS, record)(0)
    other = lg.Problem(nn.Linear(4, 3), "cross_entropy", batches)
    with (
        lg.Record.create(tmp_path, resume=True) as record,
        pytest.raises(lg.RecordError, match=r"of another problem, with \{'parameters': 43\}"),
    ):
        lg.Tracker(other, METRICS, record)


def test_thresholds_go_into_the_manifest(tmp_path):
    _, _, problem = setup()
    record = lg.Record.create(tmp_path)
    lg.Tracker(problem, [lg.metrics.Sharpness()], record, thresholds={"sharpness": 4.0})
    assert record.manifest["thresholds"] == {"sharpness": 4.0}


def test_a_threshold_that_says_what_it_is_goes_there_too(tmp_path):
    model, _, problem = setup()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    threshold = lg.stability_threshold(optimizer)
    lg.Tracker(problem, METRICS, lg.Record.create(tmp_path), thresholds={"sharpness": threshold})
    manifest = lg.Record.open(tmp_path).manifest
    assert manifest["thresholds"] == {"sharpness": 4.0}
    assert manifest["threshold_formulas"] == {"sharpness": "2/lr"}


def test_a_threshold_of_no_metric_is_refused(tmp_path):
    _, _, problem = setup()
    message = "unknown threshold 'sharpnes': did you mean sharpness? expected logits_jacobian"
    with pytest.raises(ValueError, match=re.escape(message)):
        lg.Tracker(problem, METRICS, lg.Record.create(tmp_path), thresholds={"sharpnes": 4.0})


def test_a_threshold_of_another_matrix_or_none_is_refused(tmp_path):
    model, _, problem = setup()
    record = lg.Record.create(tmp_path)
    adam, lbfgs = torch.optim.Adam(model.parameters()), torch.optim.LBFGS(model.parameters())
    for optimizer, message in (
        (adam, r"got one of PreconditionedHessian; lossgeom\.effective_sharpness"),
        (lbfgs, r"known, got one unknown \(none is known of LBFGS\)"),
    ):
        thresholds = {"sharpness": lg.stability_threshold(optimizer)}
        with pytest.raises(ValueError, match=message):
            lg.Tracker(problem, METRICS, record, thresholds=thresholds)


def test_a_with_block_finishes_the_record(tmp_path):
    _, _, problem = setup()
    with lg.Tracker(problem, METRICS, lg.Record.create(tmp_path / "a")) as tracker:
        tracker(0)
    assert lg.Record.open(tmp_path / "a").status == "finished"
    with lg.Tracker(problem, METRICS, lg.Record.create(tmp_path / "a", resume=True)) as tracker:
        tracker.record.finish("diverged")
    assert lg.Record.open(tmp_path / "a").status == "diverged"


@pytest.mark.parametrize(
    ("error", "status"), [(ZeroDivisionError, "failed"), (KeyboardInterrupt, "running")]
)
def test_a_with_block_that_raises_says_so_and_lets_go_of_the_record(tmp_path, error, status):
    _, _, problem = setup()

    def train():
        with lg.Tracker(problem, METRICS, lg.Record.create(tmp_path)) as tracker:
            tracker(0)
            raise error

    with pytest.raises(error):
        train()
    assert lg.Record.open(tmp_path).status == status
    assert len(lg.Record.open(tmp_path).rows()) == 3
    lg.Record.create(tmp_path, resume=True).close()  # nobody else is writing


def test_representation(tmp_path):
    _, _, problem = setup()
    tracker = lg.Tracker(problem, METRICS[:2], lg.Record.create(tmp_path))
    assert repr(tracker) == (
        "Tracker([loss, sharpness], Problem(Sequential, 'cross_entropy', P=43, mode='eval'), "
        f"Record({str(tmp_path)!r}, status='running', rows=0))"
    )


def test_arguments_of_another_type(tmp_path, unchecked):
    _, _, problem = setup()
    record = lg.Record.create(tmp_path)
    with pytest.raises(TypeError, match=r"expected a Record, got str; make one with"):
        lg.Tracker(problem, METRICS, "runs/mine")
    for metric in ("loss", lg.metrics.Loss):
        with pytest.raises(TypeError, match=r"expected metrics such as metrics\.Loss\(\)"):
            lg.Tracker(problem, [metric], record)
    with pytest.raises(TypeError, match=r"expected the step as an int, got 2\.5"):
        lg.Tracker(problem, METRICS, record)(2.5)


@pytest.mark.quick
def test_schedules():
    assert as_schedule(3) == Every(3)
    assert [s for s in range(8) if as_schedule([1, 5])(s)] == [1, 5]
    assert as_schedule(At([2])) == At([2])
    due = [s for s in range(10_001) if Logarithmic(per_decade=2)(s)]
    assert due == [0, 1, 3, 10, 32, 100, 316, 1000, 3162, 10000]
    for bad in (lambda: Every(0), lambda: Logarithmic(0)):
        with pytest.raises(ValueError, match="expected"):
            bad()


def test_what_is_measured_differently_is_recorded(tmp_path):
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    batches = [(torch.randn(n, 3), torch.zeros(n).long()) for n in (5, 4)]
    problem = lg.Problem(model, "cross_entropy", batches, mode="train")
    record = lg.Record.create(tmp_path / "run")
    lg.Tracker(problem, [lg.metrics.Loss()], record)(0)
    note = "BatchNorm uses the statistics of each batch, of 5, 4 examples"
    assert lg.Record.open(tmp_path / "run").manifest["notes"] == [note]
    assert note in render([tmp_path / "run"]).read_text()
