"""The verdict on a page and on the terminal, and thresholds that change along training."""

import html
import re

import pytest

from lossgeom import Record, cli
from lossgeom.recording.for_report import ForReport
from lossgeom.recording.metric_figures import Trajectories
from lossgeom.report import render

SGD = {"optimizers": ["SGD"], "formula": "2/lr", "matrix": "Hessian", "full_batch": True}


def scheduled(path, sharpness=8.0, rates=(0.25, 0.25, 0.25, 0.25, 0.23, 0.2), **config):
    with Record.create(path, config) as record:
        record.update(watched=SGD)
        for i, lr in enumerate(rates):
            row = {"step": 10 * i, "lr": lr, "threshold": 2 / lr}
            record.append({**row, "metric": "sharpness", "value": sharpness - 0.01 * i})
            record.append({**row, "metric": "critical_step", "value": 1.0 + i})
            record.append({**row, "metric": "gradient_cosine", "value": 1.0 - 1e-13 * i})
    return path


@pytest.mark.quick
def test_a_page_says_the_verdict_and_draws_the_threshold_of_each_step(tmp_path, capsys):
    folder = scheduled(tmp_path / "run")
    page = html.unescape(render([folder]).read_text())
    assert "<h2>Edge of stability</h2>" in page
    assert "<p><strong>At the edge</strong>: sharpness .92 to 1.00 of 2/lr.</p>" in page
    assert re.search(r"2/lr( is above this range)?</text>", page)
    assert "edge = 1</text>" in page  # of the critical step
    assert "gradient cosine" not in page  # which is that of full-batch steps
    assert cli.main(["report", str(folder)]) == 0
    assert capsys.readouterr().out.splitlines()[0] == (
        f"{folder}: at the edge: sharpness .92 to 1.00 of 2/lr"
    )


def test_several_runs_each_have_their_verdict_and_threshold(tmp_path):
    folders = [scheduled(tmp_path / "a", lr=1), scheduled(tmp_path / "b", 1.0, (0.2,) * 6, lr=2)]
    page = html.unescape(render(folders, tmp_path / "both.html").read_text())
    assert "<p>a is <strong>at the edge</strong>" in page
    assert "<p>b is <strong>below</strong>: sharpness .10 of 2/lr.</p>" in page
    assert "2/lr (1)" in page
    assert "2/lr = 10 (2)" in page


def test_many_verdicts_are_counted_before_they_are_told(tmp_path):
    folders = [scheduled(tmp_path / f"run{i}", sharpness=8.0 if i else 1.0) for i in range(9)]
    page = html.unescape(render(folders, tmp_path / "all.html").read_text())
    counted = "Of 9 runs, 1 is <strong>below</strong>, 8 are <strong>at the edge</strong>."
    assert page.index(counted) < page.index("<summary>Run by run</summary>")
    assert page.count("is <strong>at the edge</strong>:") == 8


def test_a_study_of_whose_runs_none_has_a_verdict_says_nothing(tmp_path):
    folder = tmp_path / "study"
    with Record.create(folder, {"study": "s"}, kind="study") as study:
        study.describe(ForReport(title="S", planned_runs=("a", "b"), figure=Trajectories()))
    for name in "ab":
        with Record.create(folder / "runs" / name) as record:
            record.describe(ForReport(thresholds={"sharpness": 2.0}))
            record.append({"step": 0, "metric": "sharpness", "value": 1.0})
    assert "Edge of stability" not in render([folder]).read_text()
    runs = render([folder / "runs" / name for name in "ab"]).read_text()
    assert runs.count("is <strong>without a verdict</strong>: it is not known whether") == 2


def test_a_threshold_out_of_sight_does_not_flatten_the_curve(tmp_path):
    folder = scheduled(tmp_path / "run", rates=(1e-3, 2e-3, 3e-3))
    page = render([folder]).read_text()
    assert ">2/lr is above this range</text>" in page


def watched(path, **others):
    """A run of an optimiser without a threshold."""
    unknown = {"optimizers": ["Muon", "AdamW"], "formula": "none is known of Muon",
               "matrix": "Hessian", "status": "unknown", "full_batch": True}  # fmt: skip
    with Record.create(path) as record:
        record.update(watched=unknown, loss="cross_entropy", parameters=3466, mode="train")
        for step in range(6):
            row = {"step": step, "lr": None, "threshold": None, "status": "ok"}
            values = {
                "update_norm": 1.0,
                "loss_sampling_error": 0.1,
                "edge_ratio": "nan",
                "gradient_cosine": 0.5,
                "realised_edge": 0.01 * step,
                "loss": 1.0,
                **others,
            }
            for metric, value in values.items():
                message = {"message": "no threshold"} if value == "nan" else {}
                record.append({**row, **message, "metric": metric, "value": value})
    return path


def test_panels_are_those_that_say_something_in_the_order_of_importance(tmp_path):
    page = html.unescape(render([watched(tmp_path / "run")]).read_text())
    figure = page[page.index("<svg") : page.index("</svg>")]
    places = [figure.index(f">{name}</text>") for name in ("loss", "realised edge", "update norm")]
    assert places == sorted(places)
    for name in ("edge ratio", "sampling error", "gradient cosine"):
        assert name not in figure
    assert "Not drawn: edge ratio has no finite value: no threshold." in page
    assert "values are NaN" not in page
    assert "edge = 1 is above this range" in figure


def test_a_page_says_what_was_trained(tmp_path):
    page = html.unescape(render([watched(tmp_path / "run")]).read_text())
    assert "<p><strong>No verdict</strong>: no threshold is known for Muon and AdamW" in page
    assert "A range is that of" not in page  # there is none
    for key, value in [
        ("optimiser", "Muon and AdamW"),
        ("learning rate", "several, or none that is known"),
        ("threshold", "none is known of Muon"),
        ("steps", "full batches"),
        ("loss", "cross_entropy"),
        ("parameters", "3,466"),
    ]:
        assert f"<dt>{key}</dt><dd>{value}</dd>" in page
    page = html.unescape(render([scheduled(tmp_path / "sgd")]).read_text())
    assert "<dt>learning rate</dt><dd>0.25 at first, 0.2 at last</dd>" in page
    assert "2/lr, for the largest eigenvalue of the Hessian of the loss</dd>" in page
    assert "A range is that of" in page
    both = [tmp_path / "run", tmp_path / "sgd"]
    page = html.unescape(render(both, tmp_path / "both.html").read_text())
    assert "run is <strong>without a verdict</strong>" in page
    assert "<dt>optimiser</dt><dd>run: Muon and AdamW; sgd: SGD</dd>" in page


def test_names_of_runs_keep_their_underscores(tmp_path):
    folders = [scheduled(tmp_path / name) for name in ("h_div", "h_mid")]
    page = render(folders, tmp_path / "both.html").read_text()
    assert ">h_div</text>" in page
