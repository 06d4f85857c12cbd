"""The verdict on a page and on the terminal, and thresholds that change along training."""

import html
import re

import pytest

from lossgeom import Record, cli
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
    assert re.search(r"2/lr(, above)?</text>", page)
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


def test_a_threshold_out_of_sight_does_not_flatten_the_curve(tmp_path):
    folder = scheduled(tmp_path / "run", rates=(1e-3, 2e-3, 3e-3))
    page = render([folder]).read_text()
    assert ">2/lr, above</text>" in page
