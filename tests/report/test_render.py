"""Where a report is written, and what it replaces."""

import os
import sys
from pathlib import Path

import pytest

from lossgeom import RecordError
from lossgeom.report import render
from tests.report.test_report import make_run, make_study


def refused(message, folders, out=None):
    with pytest.raises(ValueError, match=message):
        render(folders, out)


def test_a_report_of_several_leaves_theirs_alone(tmp_path):
    a, b = (make_run(tmp_path, name, config={"lr": 1}) for name in "ab")
    before = render([a]).read_bytes()
    far = make_run(tmp_path / "far", config={"lr": 1})
    refused("on several folders that are not beside each other, such as --out both.html", [a, far])
    refused(
        r"report\.html is the report of the record in .*a alone; choose", [a, b], a / "report.html"
    )
    refused("is the report of the record in", [b], a / "report.html")
    render([a, b], a / "both.html")
    assert render([a, b]) == tmp_path / "report.html"
    assert (a / "report.html").read_bytes() == before
    assert (a / "both-figures/trajectories.png").exists()


def test_only_what_is_ours_is_replaced(tmp_path):
    run, mine = make_run(tmp_path), tmp_path / "mine.html"
    mine.write_text("<p>lossgeom is nice</p>")
    (tmp_path / "link.html").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.html")
    for name in ("mine", "link", "pipe"):
        refused(rf"{name}\.html is no file that lossgeom wrote", [run], tmp_path / f"{name}.html")
    (tmp_path / "new-figures").mkdir()
    (tmp_path / "new-figures/trajectories.pdf").write_text("of a user")
    refused(r"trajectories\.pdf is no file that lossgeom wrote", [run], tmp_path / "new.html")
    assert mine.read_text() == "<p>lossgeom is nice</p>"
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "new-figures/trajectories.pdf").unlink()
    for _ in range(2):  # and what is ours is replaced, also figures whose page was never written
        render([run], tmp_path / "new.html")
    (tmp_path / "new.html").unlink()
    render([run], tmp_path / "new.html")
    (tmp_path / "new-figures/trajectories.png").write_text("of a user")  # beside a page of ours
    refused(r"trajectories\.png is no file that lossgeom wrote", [run], tmp_path / "new.html")
    assert (tmp_path / "new-figures/trajectories.png").read_text() == "of a user"


def test_names_that_are_not_in_utf_8(tmp_path):
    folders = [
        make_run(Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")), name, config={"lr": 1})
        for name in ("a\udce9", "b")
    ]
    page = render(folders, folders[0].parent / "both.html").read_text()
    assert "<h1>a\\udce9, b</h1>" in page
    assert ">a\\udce9</text>" in page


@pytest.mark.parametrize("missing", ["jinja2", "matplotlib"])
def test_what_a_page_needs_is_there_before_it_is_begun(tmp_path, monkeypatch, missing):
    folder = make_run(tmp_path)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=f"{missing} is needed here and comes with the extra"):
        render([folder])
    assert not (folder / "figures").exists()


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
