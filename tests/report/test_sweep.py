"""The section on metrics over a setting."""

import math
import re

import pytest

from lossgeom import Record, RecordError
from lossgeom.recording.for_report import ForReport
from lossgeom.recording.metric_figures import Outcome, Strengths, Sweep, Trajectories
from lossgeom.report import render
from lossgeom.report.sections.sweep import Run, places

ROWS = (Outcome("sharpness", "the $s$", log=True), Outcome("gap", "gap"))
DECAY = Strengths("decay", "weight decay", log=True)
SWEEP = Sweep((DECAY,), ROWS, lines="lr", caption="All <seeds>.")
ENDS = {"sharpness": 2.0, "gap": 0.1}


def make_study(folder, runs, sweep=SWEEP, planned=()):
    """Each run is its settings, its last values, and how it ended."""
    names = [f"run{i}" for i in range(len(runs))]
    with Record.create(folder, {"study": "s"}, kind="study") as record:
        record.describe(
            ForReport(
                title="S", planned_runs=(*names, *planned), sweep=sweep, figure=Trajectories()
            )
        )
        record.finish()
    for name, (settings, ends, status, left_out) in zip(names, runs, strict=True):
        with Record.create(folder / "runs" / name, settings) as record:
            for metric, value in ends.items():
                record.append({"step": 0, "metric": metric, "value": 9.0})
                record.append({"step": 10, "metric": metric, "value": value})
            record.describe(ForReport(left_out=left_out))
            record.finish(status)
    return folder


def run(decay, lr=0.1, ends=ENDS, status="finished", left_out=None, **settings):
    return {"decay": decay, "lr": lr, **settings}, ends, status, left_out


def section(folder):
    page = render([folder]).read_text()
    return page.partition("<h2>Over the settings</h2>")[2].partition("</section>")[0]


def test_lines_go_over_a_setting_with_a_place_for_zero(tmp_path):
    runs = [run(decay, lr) for decay in (0, 1e-4, 1e-2) for lr in (0.1, 0.3) for _ in "ab"]
    shown = section(make_study(tmp_path, runs))
    said = "Large points are medians over seeds, with a colour for each learning rate"
    assert said in shown
    assert "All &lt;seeds&gt;." in shown
    for text in ("weight decay", "the $s$", "gap", ">0</text>", ">0.0001</text>", ">//</text>"):
        assert text in shown
    assert re.findall(r">(learning rate|0\.1|0\.3)</text>", shown)[:3]
    for absent in ("Crosses", "Open points", "ticks at the bottom", "have no point", "no place"):
        assert absent not in shown


def test_what_is_not_in_the_medians_is_shown_and_said(tmp_path):
    runs = [
        run(0), run(1e-3),
        run(1e-2, status="diverged"), run(1e-2, status="diverged"),
        run(1e-3, left_out="too large"),
        run(0, ends={"sharpness": -1.0, "gap": math.nan}),
    ]  # fmt: skip
    shown = section(make_study(tmp_path, runs, planned=["later"]))
    assert "<strong>Crosses above a panel are runs that diverged</strong>" in shown
    assert shown.count(">2</text>") == 2  # beside a cross in each panel
    assert "Open points are runs that are left out" in shown
    assert "<strong>2 values are not finite, missing, or not above 0" in shown
    assert "<strong>1 runs have no point</strong>" in shown


def test_columns_select_runs_and_may_go_over_what_is_measured(tmp_path):
    columns = tuple(
        Strengths("strength", kind, where={"kind": ("none", kind)}) for kind in ("mixup", "sam")
    )
    runs = [
        run(0, kind=kind, ends={**ENDS, "strength": strength})
        for kind, strength in (("none", 0.0), ("mixup", 4.0), ("sam", 0.25), ("sam", math.inf))
    ]
    folder = make_study(tmp_path, runs, Sweep(columns, ROWS))
    shown = section(folder)
    assert "<strong>1 points have no place on an axis</strong>" in shown
    assert "over seeds; faint points" in shown  # no colours
    assert [shown.count(f">{kind}</text>") for kind in ("mixup", "sam", "none")] == [1, 1, 0]


def test_which_value_of_a_run_it_is():
    values = Run({"lr": 0.1}, {"gap": [3.0, 9.0, 1.0, 5.0]}, "counted")
    found = [
        values.end(Outcome("gap", "gap", of=of)) for of in ("last", "largest", "smallest", "median")
    ]
    assert found == [("counted", 5.0), ("counted", 9.0), ("counted", 1.0), ("counted", 4.0)]
    assert values.end(Outcome("other", "other"))[0] == "no value"
    assert values.strength("lr") == 0.1
    assert values.strength("gap") == 5.0
    assert values.strength("other") is None


def test_places_of_levels():
    assert places([1, 10, 100], log=True) == ({1: 0.0, 10: 1.0, 100: 2.0}, None)
    assert places([0, 0.1], log=True) == ({0: -2.0, 0.1: -1.0}, -1.5)
    assert places([-1, 0.1], log=True) == ({-1: -1.0, 0.1: 0.1}, None)
    assert places([0], log=True) == ({0: 0.0}, None)
    assert places([], log=True) == ({}, None)


def test_without_runs_that_are_over_there_is_no_section(tmp_path):
    folder = make_study(tmp_path, [], planned=["later"])
    assert "Over the settings" not in render([folder]).read_text()


def test_settings_of_one_kind(tmp_path):
    folder = make_study(tmp_path, [run(0), run("much")])
    with pytest.raises(RecordError, match="arranges its figures by the setting 'decay'"):
        render([folder])


def test_many_columns_are_wrapped(tmp_path):
    """Five are three and two, each with its own axis and the same heights as the others."""
    names = ["a", "b", "c", "d", "e"]
    columns = tuple(Strengths(name, f"strength {name}") for name in names)
    runs = [run(0.1, **dict.fromkeys(names, at)) for at in (1.0, 2.0)]
    shown = section(make_study(tmp_path, runs, Sweep(columns, ROWS)))
    width, height = (
        float(size) for size in re.findall(r'(?:width|height)="([\d.]+)pt"', shown)[:2]
    )
    assert width < 72 * 10 < height * 1.2
    assert all(f">strength {name}</text>" in shown for name in names)
