"""One self-contained HTML file from folders of records."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lossgeom.messages.extras import required
from lossgeom.messages.wording import printable
from lossgeom.plot.style import plain
from lossgeom.recording.crash_safety import write_atomically
from lossgeom.recording.folder import is_record
from lossgeom.recording.tables import as_csv, tables
from lossgeom.report._section import Section
from lossgeom.report._source import Source, read_sources
from lossgeom.report.compared import compared
from lossgeom.report.correction import correction
from lossgeom.report.figures import MARK, check_ours
from lossgeom.report.sections import SECTIONS
from lossgeom.report.sections.claims import overview
from lossgeom.report.sections.correlations import pooled

NAME = "report.html"


def render(folders: Sequence[Path], out: Path | None = None) -> Path:
    """Write the report of one or more folders, each a study's or a single run's.

    Of several studies, it begins with the claims of all, and with what their runs say together. Of
    two single runs, two measurements or two folders of one study, it begins with what differs.

    Args:
        folders: what to report on: studies one after the other, then single runs in one figure.
        out: the HTML file; default ``report.html`` in the folder, or beside several that are in one
            place. Figures go into a folder beside it, as PDF and PNG, with the source's number if
            there are several: ``figures``, or ``NAME-figures`` for any other ``NAME.html``.

    Returns:
        Where the report is.

    Raises:
        RecordError: if a folder holds no record, or a damaged one.
        ValueError: if out is not given for folders in several places, is a folder, is the report of
            a record and these are others, or would replace a file that is not a report.
        ImportError: without matplotlib and jinja2, which the extra ``lab`` brings.
    """
    template = _environment().get_template("page.html")
    out = _out(folders, out)
    figures = out.with_name("figures" if out.name == NAME else f"{out.stem}-figures")
    check_ours(out)
    sources = read_sources(folders)
    with plain():
        parts = [
            {
                "source": source,
                "sections": _sections(source, figures / number),
                "rows": _rows(source),
            }
            for i, source in enumerate(sources)
            for number in [str(i + 1) if len(sources) > 1 else ""]
        ]
        together = pooled(sources, figures)
    page = template.render(
        parts=parts, overview=overview(sources), many=correction(sources), together=together,
        compared=compared(sources), mark=MARK, figures=figures.name,
    )  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, page.encode(errors="backslashreplace"))
    return out


def _out(folders: Sequence[Path], out: Path | None) -> Path:
    """The file to write, which is not the report of another record."""
    parents = {folder.absolute().parent for folder in folders}
    if out is None and len(folders) > 1 and len(parents) > 1:
        raise ValueError(
            "expected a file for a report on several folders that are not beside each other, such "
            "as --out both.html; each of them keeps its own"
        )
    if out is None:
        out = (folders[0] if len(folders) == 1 else folders[0].parent) / NAME
    if out.is_dir():
        raise ValueError(f"expected a file to write the report to, got the folder {out}")
    alone = [folder.resolve() for folder in folders] == [out.parent.resolve()]
    if out.name == NAME and is_record(out.parent) and not alone:
        raise ValueError(
            f"{out} is the report of the record in {out.parent} alone; choose another file"
        )
    return out


def _sections(source: Source, figures: Path) -> list[Section]:
    made = [section(source, figures) for section in SECTIONS]
    return [section for section in made if section is not None]


def _rows(source: Source) -> str:
    """All numbers as CSV, for a link that asks no host; nothing where there are none."""
    rows = tables(source.records.values())[1]
    return b64encode(as_csv(rows)).decode() if rows else ""


def _shown(value: Any) -> Any:
    """Escape characters of records that are not printed; leave figures as they are."""
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
