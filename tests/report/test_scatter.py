"""The section on how runs end."""

import math
import re

from lossgeom import Record
from lossgeom.report import render
from lossgeom.report.sections.scatter import finite_ends

LAYOUT = {
    "colour": "lr",
    "size": "batch_size",
    "caption": "All <seeds> together.",
    "panels": [
        {"x": {"metric": "a", "label": "the $a$ of x_1"}, "y": {"metric": "b", "label": "b"}},
        {"x": {"metric": "b", "label": "b"}, "y": {"metric": "loss", "label": "loss"}},
    ],
}
ENDS = {"a": 1.0, "b": 2.0}


def make_run(folder, lr, batch_size, ends=ENDS, **facts):
    name = f"lr{lr}-batch{batch_size}"
    with Record.create(folder / "runs" / name, {"lr": lr, "batch_size": batch_size}) as record:
        for step in (0, 10):
            record.append({"step": step, "metric": "loss", "value": 1 / (step + 1)})
        for metric, value in ends.items():
            record.append({"step": 10, "metric": metric, "value": value})
        record.update(planned_steps=[0, 10], planned_at_end=["a", "b"], **facts)
        record.finish()
    return name


def make_study(folder, *runs, scatter=LAYOUT, planned=()):
    with Record.create(folder, {"study": "s"}, kind="study") as record:
        names = [make_run(folder, *run[:2], **run[2]) for run in runs]
        record.update(title="A study", source="a paper", planned_runs=[*names, *planned],
                      scatter=scatter)  # fmt: skip
        record.finish()
    return folder


def points(page):
    """How many points each panel has: the parts of the picture that matplotlib calls paths."""
    figure = page.split("<h2>At the end of training</h2>")[1].split("</svg>")[0]
    return [
        len(re.findall(r'<g id="PathCollection_\d+">', part))
        for part in figure.split('<g id="axes_')[1:]
    ]


def test_a_point_for_every_run_in_every_panel(tmp_path):
    runs = [(lr, size, {}) for lr in (0.1, 0.2) for size in (5, 50)]
    folder = make_study(tmp_path / "study", *runs)
    page = render([folder]).read_text()
    assert points(page) == [4, 4]
    assert "Each of the 4 points is a run, at its end. All &lt;seeds&gt; together." in page
    for words in ("learning rate", "batch size", ">0.1</text>", ">50</text>", "the $a$ of x_1"):
        assert words in page
    assert "have no point" not in page
    assert "left out" not in page
    assert {"scatter.pdf", "scatter.png"} <= {p.name for p in (folder / "figures").iterdir()}
    assert render([folder]).read_text() == page


def test_points_may_look_alike(tmp_path):
    alike = {"panels": LAYOUT["panels"]}
    folder = make_study(tmp_path / "study", (0.1, 5, {}), (0.2, 50, {}), scatter=alike)
    page = render([folder]).read_text()
    assert points(page) == [2, 2]
    assert "batch size</text>" not in page


def test_both_correlations_stand_above_a_panel(tmp_path):
    runs = [(lr, 5, {"ends": {"a": lr, "b": lr**3}}) for lr in (1.0, 2.0, 3.0)]
    page = render([make_study(tmp_path / "study", *runs)]).read_text()
    for said in ("rank correlation 1.00 (no interval)", "Pearson's 0.97 (no interval)"):
        assert said in page
    alone = render([make_study(tmp_path / "one", runs[0])]).read_text()
    assert "no interval)" not in alone


def test_what_is_left_out_is_listed_with_its_reason(tmp_path):
    reason = "loss 0.09 after 10 steps, not below <0.01>"
    folder = make_study(tmp_path / "study", (0.1, 5, {}), (0.2, 5, {"left_out": reason}))
    page = render([folder]).read_text()
    assert points(page) == [1, 1]
    assert "Runs that are left out of the claims (1) are not drawn" in page
    assert "have no point" not in page
    assert "<li>lr0.2-batch5: loss 0.09 after 10 steps, not below &lt;0.01&gt;</li>" in page


def test_runs_without_an_end_are_said_to_be_missing(tmp_path):
    folder = make_study(
        tmp_path / "study",
        (0.1, 5, {}),
        (0.2, 5, {"ends": {}}),
        (0.4, 5, {"ends": {"a": 1.0, "b": math.nan}}),
        planned=["not started"],
    )
    page = render([folder]).read_text()
    assert points(page) == [1, 1]
    assert "<strong>3 runs have no point</strong>" in page
    rows = dict(re.findall(r"<tr><td>(.*?)</td>(.*)</tr>", page))
    missing = {name: re.findall(r">(\w+)</td>", row)[-2] for name, row in rows.items()}
    assert missing == {
        "lr0.1-batch5": "0", "lr0.2-batch5": "2", "lr0.4-batch5": "0", "not started": "all"
    }  # fmt: skip


def test_without_ends_or_a_layout_there_is_no_section(tmp_path):
    for name, scatter, ends in (("none", None, ENDS), ("empty", LAYOUT, {})):
        folder = make_study(tmp_path / name, (0.1, 5, {"ends": ends}), scatter=scatter)
        assert "At the end of training" not in render([folder]).read_text()
    folder = make_study(tmp_path / "planned", planned=["a"])
    assert "At the end of training" not in render([folder]).read_text()


def test_ends_are_of_the_last_step_and_finite(tmp_path):
    record = Record.create(tmp_path / "run")
    for step, value in ((10, 1.0), (0, 2.0)):
        record.append({"step": step, "metric": "loss", "value": value})
    for step, value in ((0, 1.0), (10, math.inf)):
        record.append({"step": step, "metric": "a", "value": value})
    record.append({"note": "no measurement"})
    assert finite_ends(record) == {"loss": 1.0}
