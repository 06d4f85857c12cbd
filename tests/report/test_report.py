"""What the page of a report says."""

import base64
import csv
import html
import io
import re

import pytest

from lossgeom import Record, RecordError
from lossgeom.recording.for_report import ForReport
from lossgeom.report import render
from lossgeom.report.figures import MARK


def make_run(folder, name="run", steps=(0, 1, 2), config=None, **facts):
    with Record.create(folder / name, config or {"lr": 0.5}) as record:
        for step in steps:
            record.append({"step": step, "metric": "loss", "value": 1 / (step + 1), "status": "ok"})
        record.update(**facts)
        record.finish()
    return folder / name


def make_study(folder, runs, planned):
    with Record.create(folder, {"study": "s"}, kind="study") as record:
        record.update(
            title="A <study> & more",
            source="a paper",
            planned_runs=planned,
            summary="It is so.",
            figure={
                "columns": "lr",
                "colour": "label_smoothing",
                "panels": [{"metric": "loss", "label": "loss", "log": True}],
            },
        )
        record.finish()
    for name, config, steps in runs:
        make_run(folder / "runs", name, steps, config, planned_steps=[0, 1, 2, 3])
    return folder


def page_of(*folders):
    return render(folders).read_text()


@pytest.mark.quick
def test_a_single_run_of_ones_own(tmp_path, whole_files):
    page = page_of(make_run(tmp_path))
    assert "<h1>run</h1>" in page
    assert "<svg" in page
    files = {p.name: p.read_bytes() for p in (tmp_path / "run/figures").iterdir()}
    assert {name: content[1:4] for name, content in files.items()} == {
        "trajectories.pdf": b"PDF", "trajectories.png": b"PNG",
    }  # fmt: skip
    assert all(MARK.encode() in content for content in files.values())
    assert page_of(tmp_path / "run") == page  # the same page from the same records
    assert {p.name: p.read_bytes() for p in (tmp_path / "run/figures").iterdir()} == files


def test_all_numbers_are_a_file_in_the_page(tmp_path):
    folder = make_run(tmp_path)
    (content,) = re.findall(
        r'<a download="rows.csv" href="data:text/csv;base64,(.*)">', page_of(folder)
    )
    found = list(csv.DictReader(io.StringIO(base64.b64decode(content).decode())))
    rows = [row for row in Record.open(folder).rows() if "metric" in row]
    assert [
        (row["run"], int(row["step"]), row["metric"], float(row["value"])) for row in found
    ] == [("run", row["step"], row["metric"], row["value"]) for row in rows]


def test_single_runs_are_shown_in_one_figure(tmp_path):
    folders = [
        make_run(tmp_path, name, config={"lr": lr, "seed": 0})
        for name, lr in (("first", 0.1), ("second", 0.2))
    ]
    page = render(folders, tmp_path / "both.html").read_text()
    assert "<h1>first, second</h1>" in page
    assert page.count("<svg") == 1
    assert page.count(">step</text>") == 1  # one column of panels
    assert "<dd>first: 0.1; second: 0.2</dd>" in page
    assert "<dt>seed</dt><dd>0</dd>" in page


def test_legends_say_what_differs(tmp_path):
    one = [make_run(tmp_path, n, config={"lr": lr, "seed": 0}) for n, lr in (("a", 0.1), ("b", 2))]
    page = render(one, tmp_path / "one.html").read_text()
    assert re.findall(r">(learning rate|0\.1|2)</text>", page)[:3] == ["learning rate", "0.1", "2"]
    assert ">a</text>" not in page
    both = [*one, make_run(tmp_path, "c", config={"lr": 2, "seed": 7})]
    page = render(both, tmp_path / "both.html").read_text()
    assert ">learning rate 2, seed 7</text>" in page
    same = [*one, make_run(tmp_path, "d", config={"lr": 2, "seed": 0})]  # only names differ
    page = render(same, tmp_path / "same.html").read_text()
    assert re.findall(r">(0\.1|2 \(.\))</text>", page)[:3] == ["0.1", "2 (b)", "2 (d)"]
    assert ">d</text>" in render([one[1], same[2]], tmp_path / "names.html").read_text()


def test_several_metrics_share_a_panel_and_steps_may_grow_fast(tmp_path):
    lines = [{"metric": metric, "label": f"the {metric}"} for metric in ("bound", "error")]
    panel = {"metric": "error", "label": "distance", "log": True, "lines": lines}
    figure = {"columns": "task", "colour": "task", "step": "N", "log": True, "panels": [panel]}
    runs = [(task, seed) for task in ("a", "b") for seed in (0, 1)]
    with Record.create(tmp_path, {"study": "s"}, kind="study") as record:
        record.update(title="S", figure=figure, planned_runs=[f"{t}{s}" for t, s in runs])
    for task, seed in runs:
        config = {"task": task, "seed": seed}
        with Record.create(tmp_path / "runs" / f"{task}{seed}", config) as record:
            for N in (10, 100, 10_000):
                record.append({"step": N, "metric": "error", "value": 1 / N})
                if task == "a":
                    record.append({"step": N, "metric": "bound", "value": 2 / N})
            record.describe(ForReport(planned_steps=(10, 100, 10_000)))
            record.finish()
    page = page_of(tmp_path)
    assert [page.count(f">the {name}</text>") for name in ("bound", "error")] == [1, 1]
    assert [page.count(f">task {task}</text>") for task in ("a", "b")] == [1, 1]
    assert page.count(">task</text>") == 0  # no title: colours do not stand for tasks
    assert "Lines are medians over runs that differ in their seed" in page
    assert "planned values are missing" not in page  # of runs that have no such metric


def test_what_is_said_of_one_run_names_it(tmp_path):
    said = "measured in mode='eval'"
    facts = {"notes": [said], "thresholds_caution": said}
    folders = [make_run(tmp_path, "a", **facts), make_run(tmp_path, "b", notes=["in batches"])]
    page = html.unescape(render(folders, tmp_path / "both.html").read_text())
    assert "beside other numbers</strong>: a measured in mode='eval'." in page
    assert "<dd>a: measured in mode='eval'; b: in batches</dd>" in page
    page = html.unescape(page_of(folders[0]))
    assert "beside other numbers</strong>: measured in mode='eval'." in page
    assert "<dd>measured in mode='eval'</dd>" in page


def test_each_run_keeps_its_own_threshold(tmp_path):
    """By its formula, and with the run that it is for where they differ."""
    formulas = {"loss": "2/lr"}
    folders = [
        make_run(
            tmp_path, f"lr{lr}", config={"lr": lr}, thresholds={"loss": edge},
            threshold_formulas=formulas,
        )
        for lr, edge in ((4.0, 0.5), (0.7, 20 / 7))
    ]  # fmt: skip
    page = render(folders, tmp_path / "both.html").read_text()
    assert "2/lr = 0.5 (4)" in page
    assert "2/lr = 2.86 (0.7) is above this range" in page
    alone = page_of(folders[1])
    assert "2/lr = 2.86 is above this range" in alone
    assert "2/lr = 2.86 (" not in alone


def test_one_early_value_does_not_flatten_the_rest(tmp_path):
    def run(name, values):
        with Record.create(tmp_path / name) as record:
            for step, value in enumerate(values):
                record.append({"step": step, "metric": "sharpness", "value": value})
        return page_of(tmp_path / name)

    values = [3.0 + step / 20 for step in range(20)]
    said = "sharpness: 1 of 21 values are off the axis; all are from 3 to 900"
    assert said in run("early", [900.0, *values])
    assert "off the axis" not in run("even", values)
    assert "off the axis" not in run("few", [900.0, 3.0, 3.1, 3.2, 3.3])
    assert "off the axis" not in run("near", [9.0, *values])
    assert "off the axis" not in run("constant", [3.0] * 20)


def test_only_settings_that_were_used_are_listed(tmp_path):
    config = {"data": "digits", "folder": "data/cifar", "study": {"folder": "data/cifar", "lr": 1}}
    page = page_of(make_run(tmp_path, config=config, idle_settings=["folder"]))
    assert "cifar" not in page
    assert "<dt>study</dt><dd>lr: 1</dd>" in page


def test_pages_are_laid_out_for_phones(tmp_path):
    page = page_of(make_run(tmp_path))
    assert 'name="viewport"' in page
    assert "@media (max-width: 700px)" in page
    assert re.search(r'<div class="scroll"><svg', page)


def test_runs_of_one_name_are_told_apart(tmp_path):
    folders = [make_run(tmp_path / name, "run") for name in ("a", "b")]
    page = render(folders, tmp_path / "both.html").read_text()
    assert f"<h1>{folders[0]}, {folders[1]}</h1>" in page


def test_studies_are_shown_one_after_the_other(tmp_path):
    runs = [("a", {"lr": 0.5, "label_smoothing": 0.0}, (0, 1, 2, 3))]
    folders = [make_study(tmp_path / name, runs, ["a"]) for name in ("one", "two")]
    page = render([*folders, make_run(tmp_path)], tmp_path / "all.html").read_text()
    assert page.count("<svg") == 3
    assert (tmp_path / "all-figures/3/trajectories.png").exists()


def test_nothing_is_asked_from_anywhere(tmp_path):
    page = page_of(make_run(tmp_path))
    assert "<script" not in page
    assert "default-src 'none'" in page
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!#|data:)""", page)  # which asks no host
    assert not re.findall(r"url\(\s*['\"]?(?!#)", page)
    assert "@import" not in page
    assert "<!DOCTYPE svg" not in page
    assert "<metadata>" not in page


def test_what_comes_from_records_is_escaped(tmp_path):
    evil = "<script>alert('$x$')</script>"
    folder = make_study(
        tmp_path / "study",
        [("a", {"lr": 0.5, "label_smoothing": evil}, (0, 1))],
        ["a", evil.replace("/", "")],
    )
    page = page_of(folder)
    assert "<script" not in page
    assert "A &lt;study&gt; &amp; more" in page
    assert "&lt;script&gt;alert" in page


def test_what_is_missing_is_shown_as_missing(tmp_path):
    runs = [
        ("a", {"lr": 0.5, "label_smoothing": 0.0}, (0, 1, 2, 3)),
        ("b", {"lr": 0.5, "label_smoothing": 0.1}, (0, 1)),
    ]
    page = page_of(make_study(tmp_path / "study", runs, ["a", "b", "c"]))
    assert "This is not complete" in page
    assert "It is so." not in page
    assert "2 of 3 runs are complete" in page
    assert "<strong>2 planned values are missing</strong>" in page
    assert re.search(r"<td>c</td><td>not started</td>", page)


def test_a_complete_study_opens_with_its_result(tmp_path):
    runs = [("a", {"lr": 0.5, "label_smoothing": 0.0}, (0, 1, 2, 3))]
    page = page_of(make_study(tmp_path / "study", runs, ["a"]))
    assert '<p class="lead">It is so.</p>' in page
    assert "missing</strong>" not in page


def test_values_that_are_not_finite_are_counted(tmp_path):
    folder = make_run(tmp_path)
    with Record.create(folder, {"lr": 0.5}, resume=True) as record:
        nan = float("nan")
        record.append({"step": 3, "metric": "loss", "value": nan, "status": "nonfinite"})
        record.finish("diverged")
    row = re.search(r"<tr><td>run</td>.*</tr>", page_of(folder)).group()
    assert re.findall(r">(\w+)</td>", row) == ["run", "diverged", "4", "0", "1"]
    assert "<strong>1 values are NaN or infinite</strong>" in page_of(folder)


def test_what_ended_early_is_neither_missing_nor_infinite(tmp_path):
    early = make_run(tmp_path, "early", (0, 1), {"lr": 0.1}, planned_steps=[0, 1])
    late = make_run(tmp_path, "late", (0, 1, 2), {"lr": 0.1}, planned_steps=[0, 1, 2])
    page = render([early, late], tmp_path / "both.html").read_text()
    assert "missing</strong>" not in page
    assert "infinite</strong>" not in page


def test_a_record_without_rows(tmp_path):
    Record.create(tmp_path / "empty").close()
    assert "stopped or still running" in page_of(tmp_path / "empty")


def test_a_threshold_of_ones_own_is_drawn(tmp_path):
    page = page_of(make_run(tmp_path, thresholds={"loss": 0.4}))
    assert "threshold = 0.4" in page


def test_a_damaged_row_is_named(tmp_path):
    folder = make_run(tmp_path)
    (folder / "rows.jsonl").write_text('{"step": 0}\n[1]\n')
    with pytest.raises(RecordError, match=r"rows\.jsonl is damaged in line 2"):
        render([folder])
