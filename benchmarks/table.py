"""``python -m benchmarks.table``: the tables of the documentation, from the results."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from benchmarks import quadratic
from benchmarks.machine import slug

BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
OURS = "lossgeom"
OF_DEVICE = "device.json"  # which has tables of its own
TITLES = {
    "hvp": "One Hessian product, set-up shared by 30",
    "gauss_newton": "One Gauss-Newton product, set-up shared by 30",
    "block": "One Hessian product of a block of 8, and one of a single vector, after the set-up",
    "top1": "The largest eigenvalue, to a relative residual of 1e-3",
    "top10": "The ten largest eigenvalues, to a relative residual of 1e-3",
    "density": "The spectral density, with every number of nine or more eigenvalues to",
    "jacobian": "The spectral norms of the Jacobians of all examples",
    "jacobian_wide": "The same of 1,000 outputs, at a few examples",
    "profile": "Where the time of lossgeom's Hessian products goes",
}
MEMORY = "Peak memory{}, MB above that before:"
BESIDE = dict.fromkeys(("hvp", "gauss_newton"), ("megabytes", MEMORY.format(" of two products")))
BESIDE |= dict.fromkeys(("jacobian", "jacobian_wide"), ("megabytes", MEMORY.format("")))
BESIDE["density"] = ("products", "Hessian products of each:")
LEGEND = """\
All times are in gradients: the time of the operation by that of one `loss.backward()` of the same
loss over the same batches, taken in the same round; medians over rounds in which competitors took
turns. In parentheses is the relative error against float64, for eigenpairs the larger of error and
residual, for densities that of the number of the nine largest eigenvalues, for norms that of the
worst example. **Bold** is the fastest that is right. What is ~~struck out~~ is wrong; a star marks
what was timed once, because it is wrong or takes more than 4 times as long as the fastest.
*Advantage* is the time of the fastest right competitor by that of lossgeom; its mean is geometric.
Competitors that an oracle told their number of steps are left out of the second one."""

Result = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """Where results are and where tables go."""

    results: Path = Path("benchmarks/results")
    """The folder that ``benchmarks.run`` wrote."""
    into: Path | None = Path("docs/explanation/performance.md")
    """A page with the two lines that the tables go between; None prints them."""


def tables(records: Sequence[Result]) -> str:
    """All tables of one machine."""
    parts = [_about(records), LEGEND]
    for task, title in TITLES.items():
        cases = [record for record in records if record["tasks"].get(task)]
        for ending, some in _by_accuracy(cases, task).items():
            parts += [f"#### {title}{ending}", _task(some, task)]
            if task in BESIDE:
                field, words = BESIDE[task]
                parts += [words, _numbers(some, task, field)]
    return "\n\n".join([*parts, _settings(records)])


def _by_accuracy(records: Sequence[Result], task: str) -> dict[str, Sequence[Result]]:
    """Results of a task by the end of their title: the accuracy that was asked, where one was."""
    said = {e["accuracy"] for r in records for e in r["tasks"][task] if "accuracy" in e}
    if not said:
        return {"": records} if records else {}

    def only(record: Result, accuracy: float) -> Result:
        entries = [e for e in record["tasks"][task] if e.get("accuracy") == accuracy]
        return {**record, "tasks": {task: [{**e, "variant": ""} for e in entries]}}

    return {f" {100 * a:.0f} %": [only(r, a) for r in records] for a in sorted(said)}


def _about(records: Sequence[Result]) -> str:
    first, machine = records[0], records[0]["machine"]
    dates = sorted({record["date"][:10] for record in records})
    commits = sorted({commit for record in records for commit in record["commits"].values()})
    rounds = sorted({record["repeats"] for record in records})
    versions = {e["name"]: e["version"] for r in records for es in r["tasks"].values() for e in es}
    named = ", ".join(f"{name} {v}" for name, v in versions.items() if v and "," not in name)
    lines = [
        f"### {machine['cpu']}, {machine['cores']} cores",
        f"{' to '.join(dates[:: max(1, len(dates) - 1)])}, commit {', '.join(commits)}, "
        f"{', '.join(map(str, rounds))} rounds, {machine['torch_threads']} threads, "
        f"{first['case']['dtype']}, Python {machine['python']}, "
        f"torch {machine['versions']['torch']}, scipy {machine['versions']['scipy']}, {named}.",
        "\n".join(
            f"- `{record['case']['name']}`: {record['case']['title']}; "
            f"P = {record['case']['parameters']:,}, "
            f"a gradient takes {1e3 * record['case']['gradient_seconds']:.0f} ms"
            for record in records
        ),
    ]
    if any(record["quick"] for record in records):
        lines.append("**A smoke test: these times mean nothing.**")
    return "\n\n".join(lines)


def _task(records: Sequence[Result], task: str) -> str:
    columns = [{_row(e): e for e in record["tasks"][task]} for record in records]
    best = [_fastest(column.values()) for column in columns]
    rows = [
        [name, *(_cell(column.get(name), b) for column, b in zip(columns, best, strict=True)), ""]
        for name in dict.fromkeys(name for column in columns for name in column)
    ]
    rows.append(_advantages("*advantage*", columns))
    if any(_told(e) for column in columns for e in column.values()):
        untold = [{name: e for name, e in column.items() if not _told(e)} for column in columns]
        rows.append(_advantages("*over those told nothing*", untold))
    head = ["", *(record["case"]["name"] for record in records), "mean"]
    return markdown(head, [row for row in rows if any(row[1:])])


def _told(e: Result) -> bool:
    return "oracle" in e.get("setting", "")


def _advantages(title: str, columns: Sequence[Mapping[str, Result]]) -> list[str]:
    """Advantages of all cases, with their geometric mean."""
    ratios = [_advantage(column.values()) for column in columns]
    known = [math.log(r) for r in ratios if r is not None]
    mean = f"{math.exp(math.fsum(known) / len(known)):.2f}" if known else ""
    return [title, *("" if r is None else f"{r:.2f}" for r in ratios), mean]


def _row(e: Result) -> str:
    return f"{e['name']}, {e['variant']}" if e["variant"] else str(e["name"])


def _fastest(entries: Any) -> float:
    return min((e["gradients"] for e in entries if e["status"] == "right"), default=math.inf)


def _advantage(entries: Any) -> float | None:
    entries = list(entries)
    ours = [e for e in entries if e["peer"] == OURS]
    theirs = _fastest(e for e in entries if not e["peer"].startswith(OURS))
    best = _fastest(ours)
    return theirs / best if math.isfinite(theirs) and math.isfinite(best) else None


def _cell(e: Result | None, best: float) -> str:
    if e is None:
        return ""
    if e["status"] == "error":
        return "raises"
    time = f"{e['gradients']:.3g}"
    if e["status"] == "part":
        return time
    error = f"({max(e['error'], e.get('residual', 0.0)):.0e})"
    if e["status"] != "right":
        return f"~~{time}~~ {error}*"
    once = "*" if e["repeats"] == 1 else ""
    return f"**{time}** {error}{once}" if e["gradients"] == best else f"{time} {error}{once}"


def _numbers(records: Sequence[Result], task: str, field: str) -> str:
    """One more number of each result."""
    columns = [{_row(e): e.get(field) for e in record["tasks"][task]} for record in records]
    names = dict.fromkeys(name for c in columns for name in c if c[name] is not None)
    rows = [[n, *("" if c.get(n) is None else f"{c[n]:.0f}" for c in columns)] for n in names]
    return markdown(["", *(record["case"]["name"] for record in records)], rows)


def _settings(records: Sequence[Result]) -> str:
    """How competitors were used; the rest is with the results."""
    notes = {e["name"]: e["note"] for r in records for es in r["tasks"].values() for e in es}
    lines = [f"- {name}: {note}" for name, note in notes.items() if note]
    where = f"benchmarks/results/{slug(records[0]['machine'])}"
    said = f"Numbers of steps, threads and errors of each are with the results, in `{where}`."
    return "\n".join([*lines, "", said])


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def everything(results: Path) -> str:
    """The tables of every machine."""
    files = sorted(file for file in results.glob("*/*.json") if file.name != OF_DEVICE)
    folders = sorted({file.parent for file in files})
    if not folders:
        raise FileNotFoundError(
            f"expected results in {results}/MACHINE/CASE.json, got none; run python -m "
            "benchmarks.run first"
        )
    return "\n\n".join(
        tables([json.loads(file.read_text()) for file in files if file.parent == folder])
        + "".join(
            f"\n\n{quadratic.table(json.loads(file.read_text()))}"
            for file in folder.glob(f"{quadratic.FOLDER}/{quadratic.FILE}")
        )
        for folder in folders
    )


def put_between_marks(page: Path, text: str, begin: str = BEGIN, end: str = END) -> None:
    """Replace what is between the two marks in a page."""
    content = page.read_text() if page.exists() else ""
    if content.count(begin) != 1 or content.count(end) != 1:
        raise ValueError(f"expected {page} to have the lines {begin} and {end}, each once")
    before, rest = content.split(begin)
    after = rest.split(end)[1]
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")


def publish(make: Callable[[], str], into: Path | None, begin: str = BEGIN, end: str = END) -> int:
    """Print a text, or put it between the two marks in a page; return the exit status."""
    try:
        text = make()
        if into is None:
            sys.stdout.write(f"{text}\n")
        else:
            put_between_marks(into, text, begin, end)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Write the tables; return the exit status."""
    options = tyro.cli(Options, args=arguments, prog="python -m benchmarks.table")
    return publish(lambda: everything(options.results), options.into)


if __name__ == "__main__":
    sys.exit(main())
