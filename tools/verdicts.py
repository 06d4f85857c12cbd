"""Write docs/studies/verdicts.md, the verdicts of all studies at their quick presets, from records.

    lossgeom run all && python tools/verdicts.py runs

Several folders may be given, and the last record of a study in any of them counts. One that was
made with settings of its own, or with other than six seeds, is left out.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lossgeom.lab.studies import STUDIES
from lossgeom.recording.record import Record

PAGE = Path(__file__).parent.parent / "docs/studies/verdicts.md"
SEEDS = 6
NO_SETTINGS = {"--out", "--seeds", "--workers", "--table", "--strict"}
HEAD = """# The verdict of every claim

Of every study at its quick preset, with six seeds, on the day that its heading names.
`lossgeom run all` makes the records, in three quarters of an hour on two cores, and
`python tools/verdicts.py runs` this page of them. *Shown* and *contradicted* are judged by
intervals over seeds; a control is a statement that has to fail
([how seeds are judged](../decisions/0013-intervals-over-seeds.md)).
"""


def last_records(folders: list[str]) -> dict[str, Record]:
    """Find the last record of each study at its quick preset."""
    found: dict[str, Record] = {}
    paths = [path.parent for folder in folders for path in Path(folder).glob("**/claims.json")]
    for record in sorted(map(Record.open, paths), key=lambda record: record.manifest["created"]):
        flags = set(re.findall(r" (--[\w-]+)", record.manifest.get("command", "")))
        if record.manifest.get("seeds") == SEEDS and flags <= NO_SETTINGS:
            found[record.config["study"]] = record
    return found


def row(claim: dict[str, Any]) -> str:
    """Write a claim as a row of a table."""
    low, high = (float(end) for end in claim["interval"])
    least, most = (float(end) for end in claim["expected"])
    interval = f"{low:.3g} to {high:.3g}" if low == low else "none"
    must_be = f"{least:.3g} to {most:.3g}"
    if most == float("inf"):
        must_be = f"at least {least:.3g}"
    elif least == -float("inf"):
        must_be = f"at most {most:.3g}"
    control = "control: " if claim["control"] else ""
    cells = (
        f"{control}{claim['statement']}", claim["measured"], f"{float(claim['statistic']):.3g}",
        interval, must_be, f"*{claim['verdict']}*",
    )  # fmt: skip
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def page(records: dict[str, Record]) -> Iterator[str]:
    """Write the page, study by study, in the order of ``lossgeom list``."""
    yield HEAD
    for study in STUDIES.values():
        record = records[study.name]
        yield f"## {study.name}\n"
        yield f"{study.title}. {record.manifest['source']}. {record.manifest['created'][:10]}.\n"
        yield "| statement | measured | value | interval | must be | verdict |"
        yield "|---|---|---|---|---|---|"
        yield from map(row, json.loads((record.path / "claims.json").read_text()))
        yield ""


if __name__ == "__main__":
    records = last_records(sys.argv[1:])
    if missing := STUDIES.keys() - records:
        sys.exit(f"no record of {', '.join(sorted(missing))} at the quick preset, of {SEEDS} seeds")
    PAGE.write_text("\n".join(page(records)))
