"""``lossgeom bound``."""

from __future__ import annotations

import json
import math
import shlex
from dataclasses import asdict

from lossgeom.bounds import Bound
from lossgeom.cli import pac_bayes
from lossgeom.cli.arguments import parsed
from lossgeom.cli.bound_options import BoundCommand, Prepared, Row
from lossgeom.cli.messages import say, show
from lossgeom.cli.report import write_page
from lossgeom.cli.terminal import epoch_display
from lossgeom.cli.user_code import explained, importable
from lossgeom.recording.estimates import problem_facts
from lossgeom.recording.folder import ROWS, check_may_write
from lossgeom.recording.for_report import ForReport
from lossgeom.recording.json_files import plain, write_json
from lossgeom.recording.record import Record
from lossgeom.recording.record_format import BOUND
from lossgeom.recording.rows import SUPERSEDES
from lossgeom.wording import one_of, unknown

BOUNDS: dict[str, BoundCommand] = {"pac-bayes": pac_bayes.COMMAND}
NOT_TOLD = ("out", "json")  # options that do not identify the bound
THEIR_OWN_WORDS = (ValueError, TypeError)


def main(arguments: list[str]) -> int:
    """Compute a bound, print and write it; return the exit status."""
    if not arguments:
        raise ValueError(f"expected a bound: lossgeom bound NAME, with {one_of(BOUNDS)}")
    name, *rest = arguments
    if name in ("-h", "--help"):
        show("usage: lossgeom bound NAME [--help] [OPTIONS]\n\nbounds:")
        for known, command in BOUNDS.items():
            show(f"  {known:<24}{command.summary}")
        return 0
    if name not in BOUNDS:
        raise ValueError(unknown("bound", name, BOUNDS))
    kind = BOUNDS[name]
    options = parsed(kind.options, rest, f"bound {name}", kind.help)
    names = options.factories()
    with importable(*names):
        prepared = kind.prepare(options)
        config = plain({"bound": name, **options.config(*NOT_TOLD), **prepared.config})
        folder = options.out or options.folder("bound")
        check_may_write(folder, config, BOUND, resume=True)  # before it takes its time
        expected = f"{' and '.join(names)} to be bounded"
        with explained(expected, but=THEIR_OWN_WORDS), epoch_display(prepared.epochs) as tell:
            found, rows, text = prepared.compute(tell)
    with Record.create(folder, config, kind=BOUND, resume=True) as record:
        _write(record, prepared, found, rows)
        at = "" if options.checkpoint is None else f" at {options.checkpoint.name}"
        record.describe(
            ForReport(
                title=f"{kind.title} for {options.model}{at}",
                figure=kind.figure,
                command=shlex.join(["lossgeom", "bound", *arguments]),
            )
        )
        finite = all(math.isfinite(value) for *_, value in rows)
        record.finish("finished" if finite else "diverged")
    _show(record, options.json, text)
    return 0


def _write(record: Record, prepared: Prepared, found: Bound, rows: list[Row]) -> None:
    """Write a bound and the search for it, in place of what was there."""
    if record.rows():
        lines = (record.path / ROWS).read_bytes().count(b"\n")
        record.append({"step": 0, SUPERSEDES: lines})
    for step, metric, value in rows:
        record.append({"step": step, "metric": metric, "value": value})
    record.update(
        **problem_facts(prepared.problem),
        bound=asdict(found),
        notes=prepared.problem.notes,
        checkpoint_notes=prepared.notes,
    )


def _show(record: Record, as_json: bool, text: str) -> None:
    """Print the bound, and write it as JSON and as a page."""
    keys = ("title", "bound", "config", "versions", "command", "notes", "checkpoint_notes")
    facts = {key: record.manifest.get(key) for key in keys}
    write_json(record.path / "bound.json", facts)
    show(json.dumps(plain(facts), indent=2) if as_json else text)
    write_page(record.path, say if as_json else show)
