import re

import pytest

from lossgeom import Record, RecordError
from lossgeom.report import render


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


def test_a_single_run_of_ones_own(tmp_path):
    page = page_of(make_run(tmp_path))
    assert "<h1>run</h1>" in page
    assert "<svg" in page
    assert {p.name for p in (tmp_path / "run/figures").iterdir()} == {
        "trajectories.pdf", "trajectories.png",
    }  # fmt: skip


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


def test_runs_of_one_name_are_told_apart(tmp_path):
    folders = [make_run(tmp_path / name, "run") for name in ("a", "b")]
    page = render(folders, tmp_path / "both.html").read_text()
    assert f"<h1>{folders[0]}, {folders[1]}</h1>" in page


def test_studies_are_shown_one_after_the_other(tmp_path):
    runs = [("a", {"lr": 0.5, "label_smoothing": 0.0}, (0, 1, 2, 3))]
    folders = [make_study(tmp_path / name, runs, ["a"]) for name in ("one", "two")]
    page = render([*folders, make_run(tmp_path)], tmp_path / "all.html").read_text()
    assert page.count("<svg") == 3
    assert (tmp_path / "figures/3/trajectories.png").exists()


def test_nothing_is_asked_from_anywhere(tmp_path):
    page = page_of(make_run(tmp_path))
    assert "<script" not in page
    assert "default-src 'none'" in page
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!#)""", page)
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


def test_the_same_records_give_the_same_page(tmp_path):
    folder = make_run(tmp_path)
    assert page_of(folder) == page_of(folder)


def test_a_threshold_of_ones_own_is_drawn(tmp_path):
    page = page_of(make_run(tmp_path, thresholds={"loss": 0.4}))
    assert "threshold = 0.4" in page


def test_a_damaged_row_is_named(tmp_path):
    folder = make_run(tmp_path)
    (folder / "rows.jsonl").write_text('{"step": 0}\n[1]\n')
    with pytest.raises(RecordError, match=r"rows\.jsonl is damaged in line 2"):
        render([folder])


def test_errors(tmp_path):
    with pytest.raises(ValueError, match="expected a file to write the report to"):
        render([make_run(tmp_path)], tmp_path)
    (tmp_path / "run").rename(tmp_path / "moved")
    with pytest.raises(RecordError, match="holds no record"):
        render([tmp_path])
    folder = make_study(tmp_path / "study", [], [])
    (folder / "claims.json").write_text("[")
    with pytest.raises(RecordError, match=r"claims\.json cannot be read"):
        render([folder])
