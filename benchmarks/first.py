"""``python -m benchmarks.first``: what a first number costs, in time and in memory.

The first Hessian product, set-up and checks included, and the next one; the peak of memory; and how
both grow with the size of a model. Every figure is taken in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from benchmarks.first_cases import LINES, RIVALS, SIZES
from benchmarks.machine import ROOT, commit, machine, now, slug
from benchmarks.table import markdown, publish

BEGIN, END = "<!-- first: begin -->", "<!-- first: end -->"
FILE = Path("first") / "first.json"
TASKS = ("first", "memory", "scale")
TITLES = {
    "first": "The first product, set-up and checks included, and the next one, in gradients",
    "memory": "Peak memory of both, MB above that before",
    "scale": "How they grow: transformers on 2 x 128 tokens, lossgeom with all checks",
}
COLUMNS = {
    "parameters": "parameters",
    "gradient_seconds": "gradient, s",
    "first": "first product, gradients",
    "next": "next product, gradients",
    "megabytes": "peak, MB",
    "by_theta": "peak by that of theta",
    "announced": "announced, MB",
    "products": "products of one eigenpair to 1e-3",
    "eigenpair": "the eigenpair, gradients",
    "eigenpair_megabytes": "its peak, MB",
}


@dataclass(frozen=True)
class Options:
    """What to run, and where it goes."""

    tasks: tyro.conf.Positional[tuple[str, ...]] = TASKS
    """first, memory and scale."""
    quick: tyro.conf.FlagCreatePairsOff[bool] = False
    """Small models: shows that everything runs. Its times mean nothing."""
    out: Path = Path("benchmarks/results")
    """A folder in it, named after the machine, gets the results with the log of notes."""
    into: Path | None = None
    """A page with the two lines that the tables go between; without one they are printed."""


def measured(*arguments: str, quick: bool) -> dict[str, Any]:
    """What a process of its own has measured, or its error."""
    command = [sys.executable, "-m", "benchmarks.first_cases", *arguments, str(int(quick))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)  # noqa: S603
    said = done.stdout.strip().splitlines()
    if done.returncode or not said:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return {"status": "error", "message": lines[-1][:160]}
    found: dict[str, Any] = json.loads(said[-1])
    return found


def results(options: Options) -> dict[str, Any]:
    """All that is asked for."""
    record = {"machine": machine(), "date": now(), "commit": commit(), "quick": options.quick}
    rows: list[dict[str, Any]] = []
    if {"first", "memory"} & set(options.tasks):
        for line in LINES:
            for name in RIVALS:
                found = measured(line, name, quick=options.quick)
                rows.append({"line": line, "name": name, **found})
                sys.stderr.write(f"{line}, {name}: {found}\n")
    scale = []
    if "scale" in options.tasks:
        for size in SIZES:
            scale.append(measured("scale", size, quick=options.quick))
            sys.stderr.write(f"{size}: {scale[-1]}\n")
    notes = [
        f"{row['line']}, {row['name']}: {note}"
        for row in rows
        for note in (row.get("message"), *row.get("notes", ()))
        if note
    ]
    return {**record, "tasks": options.tasks, "rows": rows, "scale": scale, "notes": notes}


def page(record: Mapping[str, Any]) -> str:
    """The tables."""
    about, rows = record["machine"], record["rows"]
    text = [
        f"{about['cpu']}, threads: {about['torch_threads']}, torch {about['versions']['torch']}, "
        f"{record['date'][:10]}, commit {record['commit']}; float32. Notes and errors are with the "
        f"results, in `benchmarks/results/{slug(about)}/{FILE}`."
    ]
    titles = {row["line"]: row["title"] for row in rows if "title" in row}
    text += ["\n".join(f"- `{line}`: {title}" for line, title in titles.items())] if titles else []
    if record["quick"]:
        text.append("**A smoke test: these times mean nothing.**")
    for task in record["tasks"]:
        text.append(f"#### {TITLES[task]}")
        text.append(_scale(record["scale"]) if task == "scale" else _rivals(task, rows))
    return "\n\n".join(text)


def _rivals(task: str, rows: Sequence[Mapping[str, Any]]) -> str:
    found = {(row["name"], row["line"]): row for row in rows}
    body = [[name, *(_cell(task, found[name, line]) for line in LINES)] for name in RIVALS]
    return markdown(["", *LINES], body)


def _cell(task: str, row: Mapping[str, Any]) -> str:
    if row["status"] == "error":
        return "raises"
    if row["status"] == "absent":
        return ""
    if task == "first":
        cell = f"{row['first']:.1f}, {row['next']:.1f}"
    elif row["megabytes"] is None:
        cell = ""
    else:
        announced = row.get("announced")
        cell = f"{row['megabytes']:,.0f}" + (f" of {announced:,.0f}" if announced else "")
    return cell if row["status"] == "right" else f"~~{cell}~~"


def _scale(rows: Sequence[Mapping[str, Any]]) -> str:
    def cell(value: object) -> str:
        return f"{value:,.3g}" if isinstance(value, float) else f"{value:,}" if value else ""

    body = [[cell(row.get(key)) for key in COLUMNS] for row in rows]
    return markdown(list(COLUMNS.values()), body)


def main(arguments: list[str] | None = None) -> int:
    """Measure and write; return the exit status."""
    options = tyro.cli(Options, args=arguments, prog="python -m benchmarks.first")
    unknown = set(options.tasks) - set(TASKS)
    if unknown:
        sys.stderr.write(f"error: expected tasks from {', '.join(TASKS)}, got {unknown}\n")
        return 2
    record = results(options)
    file = options.out / slug(record["machine"]) / FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(record, indent=1) + "\n")
    return publish(lambda: page(record), options.into, BEGIN, END)


if __name__ == "__main__":
    sys.exit(main())
