"""What every section of a report keeps to; sections are listed in one place."""

from pathlib import Path

import pytest

from lossgeom import Record, report
from lossgeom.recording.for_report import ForReport
from lossgeom.report import render
from lossgeom.report._source import read_sources
from lossgeom.report.sections import SECTIONS

TEMPLATES = Path(report.__file__).parent / "templates"
FIRST = {"run": "Runs", "study": "Runs", "measurement": "Geometry", "bound": "Bound"}


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_a_section_has_a_file_a_template_and_a_docstring_of_its_own(section):
    assert section.__module__.rpartition(".")[2] == section.__name__
    assert (TEMPLATES / f"{section.__name__}.html").exists()
    assert section.__doc__


@pytest.mark.parametrize("kind", FIRST)
def test_a_record_without_anything_to_show(tmp_path, kind):
    """Sections that are not for it say so with None; the others say that there is nothing yet."""
    record = Record.create(tmp_path / kind, kind=kind)
    record.describe(ForReport(planned_runs=("a",) if kind == "study" else ()))
    record.close()
    (source,) = read_sources([record.path])
    made = [made for section in SECTIONS if (made := section(source, tmp_path)) is not None]
    page = render([record.path]).read_text()
    assert all(f"<h2>{section.title}</h2>" in page for section in made)
    assert {"Configuration and environment", FIRST[kind]} <= {section.title for section in made}
    assert "This is not complete" in page
    assert "<svg" not in page
