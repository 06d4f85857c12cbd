"""``lossgeom report``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import tyro

from lossgeom.cli.arguments import named, optional, parsed, records_among
from lossgeom.cli.messages import say, show
from lossgeom.recording.json_files import plain, write_json

HELP = """\
Write the report of records, from what they hold now.

examples:
  lossgeom report runs/mine                          into runs/mine/report.html
  lossgeom report runs/a runs/b --out both.html      together, with what differs, in one figure
  lossgeom report runs/*                             the claims of all, into runs/report.html

Of several, those that are no records, such as the report itself, are left out."""


@dataclasses.dataclass(frozen=True)
class ReportOptions:
    """What to report on."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, named("RUN [RUN ...]")]
    """Folders of studies or of single runs."""
    out: Annotated[Path | None, optional("FILE", "report.html in RUN, or beside several")] = None
    """The HTML file. Only reports are replaced."""


def publish(folder: Path, file: str, facts: dict[str, Any], text: str, as_json: bool) -> None:
    """Print what a record holds, as JSON or as text, and write it as JSON and as a page."""
    from lossgeom.report import render

    write_json(folder / file, facts)
    show(json.dumps(plain(facts), indent=2) if as_json else text)
    tell = say if as_json else show
    if layers := facts.get("layers"):
        say(f"drawing figures of {len(layers)} layers, some seconds each ...")
    try:
        tell(f"report: {render([folder])}")
    except ImportError as error:
        tell(f"no report: {error}; then lossgeom report {folder} writes it")


def main(arguments: list[str]) -> int:
    """Write a report; return the exit status."""
    options = parsed(ReportOptions, arguments, "report", HELP)
    if not options.runs:
        raise ValueError("expected at least one folder: lossgeom report RUN [RUN ...]")
    from lossgeom.recording.record import Record
    from lossgeom.recording.verdicts import is_about_the_edge, verdict_of
    from lossgeom.report import render

    runs = records_among(options.runs)
    page = render(runs, options.out)
    for path in runs:
        record = Record.open(path)
        if is_about_the_edge(record):
            show(f"{path}: {verdict_of(record)}")
    show(f"report: {page}")
    return 0
