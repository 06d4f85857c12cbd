"""The verdict on a record, read from its rows."""

import math

import pytest

import lossgeom as lg
from lossgeom.recording.edge_lines import edge_line
from lossgeom.recording.verdicts import is_about_the_edge, series_of

pytestmark = pytest.mark.quick
AT_EDGE = [0.9, 1.0, 1.1, 1.0, 1.05]
SGD = {"optimizers": ["SGD"], "formula": "2/lr", "matrix": "Hessian", "full_batch": True}


def write(path, watched=None, **metrics):
    """A record with a row per value; a value may be a dict with further fields."""
    with lg.Record.create(path) as record:
        if watched is not None:
            record.update(watched=watched)
        for metric, values in metrics.items():
            for step, value in enumerate(values):
                row = value if isinstance(value, dict) else {"value": value}
                record.append({"step": 10 * step, "metric": metric, "status": "ok", **row})
    return lg.Record.open(path)


def over(values, thresholds, lr=0.25):
    return [
        {"value": value, "threshold": edge, "lr": lr}
        for value, edge in zip(values, thresholds, strict=True)
    ]


def test_the_ratio_of_each_step(tmp_path):
    record = write(tmp_path, SGD, edge_ratio=AT_EDGE, sharpness=[1.0] * 5)
    assert str(lg.verdict_of(record)) == "at the edge: sharpness 1.00 to 1.05 of 2/lr"


def test_sharpness_over_the_thresholds_beside_it(tmp_path):
    """A scheduled learning rate, with a threshold for each row."""
    sharpness = over([8.0] * 8, [8.0] * 4 + [80.0] * 4)
    record = write(tmp_path, SGD, sharpness=sharpness)
    assert str(lg.verdict_of(record)) == (
        "below since step 40: sharpness .10 of 2/lr; at the edge from step 0 to 30"
    )


def test_thresholds_of_another_matrix_are_not_those_of_sharpness(tmp_path):
    adam = {**SGD, "optimizers": ["Adam"], "formula": "38", "matrix": "PreconditionedHessian"}
    record = write(tmp_path / "a", adam, sharpness=over([38.0] * 5, [38.0] * 5))
    assert lg.verdict_of(record).kind == "not stated"
    assert edge_line(record, "sharpness") is None
    record = write(tmp_path / "b", adam, effective_sharpness=over([38.0] * 5, [38.0] * 5))
    assert str(lg.verdict_of(record)) == "at the edge: effective sharpness 1.00 of 38"
    assert edge_line(record, "effective_sharpness").values == (38.0,) * 5


def test_the_constant_threshold_of_a_tracker(tmp_path):
    with lg.Record.create(tmp_path) as record:
        record.update(thresholds={"sharpness": 8.0}, threshold_formulas={"sharpness": "2/lr"})
        for step in range(5):
            record.append({"step": step, "metric": "sharpness", "value": 4.0})
    assert is_about_the_edge(record)
    assert lg.verdict_of(record).reason.startswith("it is not known whether steps are on mini")
    assert str(lg.verdict_of(record, full_batch=True)) == "below: sharpness .50 of 2/lr"


def test_losses(tmp_path):
    nan = {"value": math.nan, "status": "nonfinite"}
    failed = {"value": math.nan, "status": "failed"}
    record = write(tmp_path / "a", SGD, edge_ratio=AT_EDGE, loss=[1.0] * 4 + [nan])
    assert str(lg.verdict_of(record)) == "diverged since step 40: the loss is not finite"
    record = write(tmp_path / "b", SGD, edge_ratio=AT_EDGE, loss=[1.0] * 4 + [failed])
    assert lg.verdict_of(record).kind == "at the edge"
    record = write(tmp_path / "c", SGD, edge_ratio=[*AT_EDGE, failed], loss=[1.0] * 6)
    assert lg.verdict_of(record).reason.endswith("(the last 1 could not be measured)")


def test_a_run_that_says_that_it_diverged(tmp_path):
    record = lg.Record.create(tmp_path)
    record.append({"step": 0, "metric": "edge_ratio", "value": 1.0})
    record.finish("diverged")
    assert str(lg.verdict_of(record)) == "diverged: the record says so"


def test_batch_sharpness(tmp_path):
    batch = [{"value": 3.28, "lr": 0.25}] * 5
    sgd = {**SGD, "full_batch": False}
    record = write(tmp_path / "a", sgd, edge_ratio=AT_EDGE, batch_sharpness=batch)
    assert str(lg.verdict_of(record)) == "below: batch sharpness .41 of 2/lr"
    assert edge_line(record, "batch_sharpness").values == (8.0,) * 5
    heavy = {**sgd, "formula": "2 (1 + momentum)/lr"}
    record = write(tmp_path / "b", heavy, batch_sharpness=batch)
    assert lg.verdict_of(record).kind == "not stated"
    assert edge_line(record, "batch_sharpness") is None


def test_gauges_of_single_steps(tmp_path):
    muon = {"optimizers": ["Muon", "AdamW"], "status": "unknown", "full_batch": True}
    record = write(tmp_path, muon, update_curvature=[1.9] * 6, critical_step=[300.0] * 6)
    assert str(lg.verdict_of(record)) == (
        "not stated: no threshold is known for Muon and AdamW; since step 0 its steps lower the "
        "loss by little of what the slope promises, or raise it: update curvature .95 of 2"
    )
    series = series_of(record, record.rows())
    assert series.critical_steps == [300.0] * 6
    assert series.ratios == [None] * 6


def test_only_optimisers_without_a_threshold_are_named(tmp_path):
    both = {"optimizers": ["Muon", "AdamW"], "status": "unknown", "full_batch": True}
    record = write(tmp_path / "a", {**both, "unknown": ["Muon"]}, update_curvature=[0.02] * 6)
    assert str(lg.verdict_of(record)) == (
        "not stated: no threshold is known for Muon; update curvature at most .01 of 2 in the last "
        "steps: no sign of an edge"
    )
    groups = {**SGD, "status": "unknown", "formula": "none, since parameter groups differ"}
    record = write(tmp_path / "b", groups, loss=[1.0] * 4)
    assert "known for SGD (none, since parameter groups differ); " in str(lg.verdict_of(record))


def test_steps_with_a_nominal_threshold_are_left_out_once_there_are_others(tmp_path):
    """The first steps of Adam, whose preconditioner is still young."""
    adam = {**SGD, "optimizers": ["Adam"], "matrix": "PreconditionedHessian", "formula": "38"}
    early = [{"value": value, "nominal": True} for value in (30.7, 1.57, 0.2)]
    later = [{"value": value} for value in (0.25, 0.3, 0.25, 0.3)]
    record = write(tmp_path / "a", {**adam, "status": "ok"}, edge_ratio=[*early, *later])
    assert str(lg.verdict_of(record)) == "below: effective sharpness .25 to .30 of 38"
    record = write(tmp_path / "b", {**adam, "status": "ok"}, edge_ratio=[*early, later[0]])
    assert lg.verdict_of(record).reason == (
        "1 value of effective sharpness over 38, beside 3 where its threshold is nominal yet; it "
        "takes 3"
    )
    record = write(tmp_path / "c", {**adam, "status": "nominal"}, edge_ratio=early)
    assert "(nominal)" in lg.verdict_of(record).reason


def test_steps_with_a_learning_rate_of_zero_are_left_out(tmp_path):
    still = [{"value": 0.0, "lr": 0.0, "threshold": math.inf}] * 3
    record = write(tmp_path / "a", SGD, edge_ratio=still)
    assert "the learning rate is 0" in lg.verdict_of(record).reason
    record = write(tmp_path / "b", SGD, edge_ratio=[*AT_EDGE, *still])
    assert lg.verdict_of(record).kind == "at the edge"
    flat = [{"value": 0.0, "lr": 0.25, "threshold": 8.0}] * 3
    record = write(tmp_path / "c", SGD, edge_ratio=flat)
    assert str(lg.verdict_of(record)) == "below: sharpness 0 of 2/lr"


def test_the_cosine_of_gradients_is_quoted(tmp_path):
    part = {**SGD, "full_batch": False}
    record = write(tmp_path, part, edge_ratio=AT_EDGE, gradient_cosine=[0.1, 0.15, 0.2])
    assert "(gradient cosine .15), and have another edge" in lg.verdict_of(record).reason


def test_nothing_measured(tmp_path):
    record = write(tmp_path / "a", SGD)
    assert str(lg.verdict_of(record)) == "not stated: nothing measured"
    failed = {"value": math.nan, "status": "failed", "message": "RuntimeError: no derivative"}
    record = write(tmp_path / "b", sharpness=[failed] * 30, edge_ratio=[failed] * 30)
    assert str(lg.verdict_of(record)) == (
        "not stated: nothing measured that tells of the edge (60 failed: RuntimeError: no "
        "derivative)"
    )
    record = write(tmp_path / "c", edge_ratio=[failed] * 3, loss=[1.0, math.nan])
    assert lg.verdict_of(record).kind == "diverged"
    with lg.Record.create(tmp_path / "d") as record:
        assert lg.verdict_of(record).reason == "nothing measured yet"


def test_records_without_anything_to_say(tmp_path):
    record = write(tmp_path, loss=[1.0, 0.5])
    assert not is_about_the_edge(record)
    assert lg.verdict_of(record).kind == "not stated"
    assert edge_line(record, "loss") is None
    assert edge_line(record, "sharpness") is None


def test_lines_of_edges(tmp_path):
    rates = [0.1, 0.1, 0.0]
    record = write(
        tmp_path, SGD,
        critical_sharpness=[{"value": 5.0, "lr": lr} for lr in rates],
        sharpness=over([5.0] * 3, [20.0, 20.0, math.inf]),
        update_curvature=[1.0, 1.0],
    )  # fmt: skip
    line = edge_line(record, "critical_sharpness")
    assert (line.steps, line.values[:2], line.formula) == ((0, 10, 20), (20.0, 20.0), "2/lr")
    assert math.isnan(line.values[2])  # no edge where nothing moves
    assert edge_line(record, "sharpness").values[:2] == (20.0, 20.0)
    assert edge_line(record, "update_curvature").values == (2.0, 2.0)
