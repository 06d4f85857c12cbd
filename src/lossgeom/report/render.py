"""One self-contained HTML file from folders of records."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lossgeom.extras import required
from lossgeom.files import write_atomically
from lossgeom.printable import printable
from lossgeom.report._section import Section
from lossgeom.report._source import Source, read_sources
from lossgeom.report.sections import SECTIONS


def render(folders: Sequence[Path], out: Path | None = None) -> Path:
    """Write the report of one or more folders, each a study's or a single run's.

    Args:
        folders: what to report on: studies one after the other, then single runs in one figure.
        out: the HTML file; default ``report.html`` in the first folder. Figures go into a folder
            ``figures`` beside it, as PDF and PNG, with the source's number if there are several.

    Returns:
        Where the report is.

    Raises:
        RecordError: if a folder holds no record, or a damaged one.
        ValueError: if out is a folder.
        ImportError: without matplotlib and jinja2, which the extra ``lab`` brings.
    """
    out = folders[0] / "report.html" if out is None else out
    if out.is_dir():
        raise ValueError(f"expected a file to write the report to, got the folder {out}")
    parts = []
    sources = read_sources(folders)
    for i, source in enumerate(sources):
        figures = out.parent / "figures" / (str(i + 1) if len(sources) > 1 else "")
        parts.append({"source": source, "sections": _sections(source, figures)})
    page = _environment().get_template("page.html").render(parts=parts)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, page.encode())
    return out


def _sections(source: Source, figures: Path) -> list[Section]:
    made = [section(source, figures) for section in SECTIONS]
    return [section for section in made if section is not None]


def _shown(value: Any) -> Any:
    """A value of a record as it may be in a page; figures are left alone."""
    return printable(value, keep="\n") if type(value) is str else value


def _environment() -> Any:
    jinja2 = required("jinja2")
    return jinja2.Environment(
        loader=jinja2.PackageLoader("lossgeom.report"),
        autoescape=True,
        finalize=_shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
