"""Pages of several records: what is in them, and what differs between two."""

import html
import re

from lossgeom import Record
from lossgeom.cli import main
from lossgeom.recording.claim import Claim
from lossgeom.recording.for_report import ForReport
from lossgeom.recording.json_files import write_json
from lossgeom.recording.metric_figures import Trajectories
from lossgeom.report import render
from tests.report.test_report import make_run


def make_study(folder, claims=(), runs=(("a", "finished"),), planned=(), **config):
    with Record.create(folder, {"study": "s", **config}, kind="study") as record:
        names = tuple(name for name, _ in runs) + tuple(planned)
        told = ForReport(title=folder.name.title(), planned_runs=names, figure=Trajectories())
        record.describe(told)
        write_json(folder / "claims.json", [claim.to_json() for claim in claims])
        record.finish()
    for name, status in runs:
        with Record.create(folder / "runs" / name, config) as record:
            record.finish(status)
    return folder


def claim(name, value):
    ends = (value - 0.1, value + 0.1)
    return Claim(name, f"{name} is large.", "A", "it", value, ends, (value,), (1.0, 9.0))


def rows(page, heading):
    """The cells of the tables of a section."""
    section = page.split(f"<h2>{heading}</h2>")[1].split("</section>")[0]
    return [
        [html.unescape(cell) for cell in re.findall(r"<t[dh].*?>(.*?)</t[dh]>", row)]
        for row in re.findall(r"<tr>.*?</tr>", section, re.DOTALL)
    ]


def test_two_runs_side_by_side(tmp_path):
    a = make_run(tmp_path, "a", config={"lr": 0.5, "seed": 0, "model": {"widths": [3, 4]}})
    b = make_run(tmp_path, "b", (0, 1), config={"lr": 1.0, "seed": 0, "model": {"widths": [3]}})
    with Record.create(b, Record.open(b).config, resume=True) as record:
        record.append({"step": 1, "metric": "gap", "value": 2.0})
        record.finish()
    page = render([a, b]).read_text()
    assert "<h1>a and b</h1>" in page
    assert rows(page, "Settings that differ") == [
        ["", "a", "b"], ["lr", "0.5", "1.0"], ["model.widths", "3; 4", "3"]
    ]  # fmt: skip
    assert rows(page, "Metrics at the end")[1:] == [
        ["loss", "0.333", "0.5", "1.5"], ["gap", "not there", "2", "no value"]
    ]  # fmt: skip
    assert "Not drawn: gap is measured at step 1 alone: 2." in page
    assert "Claims that differ" not in page
    three = render([a, b, make_run(tmp_path, "c", config={"lr": 2})]).read_text()
    assert "Settings that differ" not in three


def test_two_folders_of_a_study_side_by_side(tmp_path):
    both = claim("both", 2.0)
    here = make_study(tmp_path / "here", [both, claim("one", 2.0)], lr=1)
    there = make_study(tmp_path / "there", [both, claim("one", 0.5)], lr=2)
    page = render([here, there]).read_text()
    assert "<h1>here and there</h1>" in page
    assert rows(page, "Settings that differ")[1:] == [["lr", "1", "2"]]
    assert rows(page, "Claims that differ")[1:] == [
        ["one is large.", "✓ shown: 2, [1.9, 2.1]", "✗ contradicted: 0.5, [0.4, 0.6]"]
    ]
    assert "Claims and controls with the same verdict and numbers: 1." in page
    other = Record.create(tmp_path / "other", {"study": "t"}, kind="study")
    other.close()
    assert "Settings that differ" not in render([here, other.path]).read_text()


def test_a_folder_is_named_with_its_place_where_both_have_one_name(tmp_path):
    pair = [make_study(tmp_path / place / "s", lr=1) for place in "ab"]
    page = render(pair, tmp_path / "both.html").read_text()
    assert f"<h1>{pair[0]} and {pair[1]}</h1>" in page
    assert all(f"<h1>S: {folder}</h1>" in page for folder in pair)
    assert "<p>None.</p>" in page


def test_contents_name_what_is_not_complete_or_failed(tmp_path, capsys):
    good = make_study(tmp_path / "good", [claim("a", 2.0)])
    late = make_study(tmp_path / "late", [claim("a", 2.0)], planned=["b", "c"])
    runs = [("a", "finished"), *((f"b{i}", "failed") for i in range(5))]
    bad = make_study(tmp_path / "bad", [claim("a", 2.0)], runs)
    (tmp_path / "notes.txt").write_text("mine")
    everything = [str(path) for path in (bad, good, late, tmp_path / "notes.txt")]
    assert main(["report", *everything]) == 0
    told = capsys.readouterr()
    assert f"no records, and left out: {tmp_path / 'notes.txt'}" in told.err
    page = (tmp_path / "report.html").read_text()
    contents = page.split('class="contents"')[1].split("</table>")[0]
    found = re.findall(r'<a href="#(.*?)">(.*?)</a></td>\n<td>(.*?)</td>', contents)
    assert [each[:2] for each in found] == [
        ("claims1", "Bad"), ("claims2", "Good"), ("part3", "Late")
    ]  # fmt: skip
    plain = [re.sub("<.*?>", "", said) for _, _, said in found]
    assert plain == [
        "1 of 1 claims shown; failed: b0, b1, b2 and 2 others",
        "1 of 1 claims shown",
        "not complete: 1 of 3 runs are over",
    ]
    assert "<h1>All claims</h1>" in page
    assert "claims and controls from 2 folders" in page
    anchors = set(re.findall(r'id="(\w+)"', page))
    assert set(re.findall(r'href="#(\w+)"', page.replace("xlink:href", ""))) <= anchors
