"""``python -m benchmarks.run``: run the races and write a JSON for each case."""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import tyro

from benchmarks.cases import CASES, Case
from benchmarks.machine import commit, machine, now, slug
from benchmarks.peers import PEERS, Peer
from benchmarks.plain import Reference, gradient
from benchmarks.tasks import TASKS, Bench
from benchmarks.timing import Lap, unit

SCHEMA = 1
HELP = """\
Compare lossgeom with other libraries, side by side in one run.

Every time is given in gradients: the time of the operation by the time of one plain loss.backward()
of the same loss over the same batches in the same round. Competitors take turns in every round;
figures are medians over rounds. Every result is checked against products in float64 that are
computed apart; one that is wrong is marked so, and counts for nothing.

examples:
  python -m benchmarks.run                                everything, some four hours on 2 cores
  python -m benchmarks.run --quick --out /tmp/benchmarks  a smoke test of some minutes
  python -m benchmarks.run --cases mlp --tasks hvp,top1   a part of it
  python -m benchmarks.table                              the tables, from the results

Competitors that are not installed are left out; pip install '.[benchmarks]' brings most.
The machine should have nothing else to do."""


@dataclass(frozen=True)
class Options:
    """What to run. Lists are separated by commas."""

    cases: str = ",".join(CASES)
    """Models and data."""
    tasks: str = ",".join(TASKS)
    """What to measure."""
    peers: str = ",".join(PEERS)
    """Competitors."""
    repeats: int = 5
    """Rounds, whose medians are reported."""
    quick: tyro.conf.FlagCreatePairsOff[bool] = False
    """Little data and one round: shows that everything runs. Its times mean nothing."""
    out: Path = Path("benchmarks/results")
    """A folder in it, named after the machine, gets a JSON for each case. Tasks that are not run
    again stay if sizes, rounds and machine are the same."""


def say(text: str) -> None:
    """Write to standard error, where a terminal shows only the latest of the passing messages."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def selected(names: str, known: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The members of a list that were asked for."""
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        raise ValueError(
            f"expected --{kind} from {','.join(known)}; got {','.join(unknown) or 'none'}"
        )
    return {name: known[name] for name in wanted}


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked for; return the exit status."""
    options = tyro.cli(Options, args=arguments, prog="python -m benchmarks.run", description=HELP)
    try:
        cases = selected(options.cases, CASES, "cases")
        tasks = selected(options.tasks, TASKS, "tasks")
        peers = selected(options.peers, PEERS, "peers")
    except ValueError as error:
        say(f"error: {error}")
        return 2
    for peer in peers.values():
        if not peer.available:
            say(f"{peer.name} is not installed and left out; {peer.install}")
    repeats = 1 if options.quick else options.repeats
    for name, make in cases.items():
        say(f"{name}: training")
        case = smaller(make(True)) if options.quick else make(False)
        written = run_case(case, tasks, peers, repeats, options.out, options.quick)
        say(f"{name}: wrote {written}")
    return 0


def smaller(case: Case) -> Case:
    """Take fewer products, too."""
    return replace(case, products=3, patience=60, few=1)


def run_case(
    case: Case,
    tasks: Iterable[str],
    peers: Mapping[str, Peer],
    repeats: int,
    out: Path,
    quick: bool = False,
) -> Path:
    """Measure a case, and write what was found after every task."""
    about = machine()
    record: dict[str, Any] = {
        "schema": SCHEMA,
        "case": describe(case),
        "machine": about,
        "date": now(),
        "repeats": repeats,
        "quick": quick,
    }
    file = out / slug(about) / f"{case.name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    record["commits"], record["tasks"] = others(file, record)
    started, bench = time.monotonic(), Bench(case, Reference(case), peers, repeats)
    for task in tasks:
        laps = measure(bench, task)
        record["commits"][task] = commit()
        record["tasks"][task] = [entry(key, peers, lap) for key, lap in laps.items()]
        record["minutes"] = round((time.monotonic() - started) / 60, 2)
        file.write_text(json.dumps(record, indent=1) + "\n")
    return file


def others(file: Path, record: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, Any]]:
    """Commits and tasks of an earlier run, of the same sizes on the same machine."""
    if not file.exists():
        return {}, {}
    before = json.loads(file.read_text())
    same = all(before.get(key) == record[key] for key in ("schema", "repeats", "quick"))
    lasting = [
        ({**one["case"], "gradient_seconds": 0.0}, {**one["machine"], "load_before": 0.0})
        for one in (before, record)
    ]
    if not same or lasting[0] != lasting[1]:
        return {}, {}
    return before["commits"], before["tasks"]


def measure(bench: Bench, task: str) -> dict[str, Lap]:
    """Race one task, with its results on the terminal."""
    start = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of competitors, about themselves
        laps = TASKS[task](bench)
    say(f"{bench.case.name}, {task} ({time.monotonic() - start:.0f} s):")
    for key, lap in laps.items():
        say(f"  {key:<34}{words(lap.summary())}")
    return laps


def words(summary: Mapping[str, Any]) -> str:
    """Write a result in a line."""
    if summary.get("status") == "error":
        return f"error  {summary['message']}"
    numbers = "  ".join(
        f"{name} {summary[name]:.1e}" for name in ("error", "residual") if name in summary
    )
    spread = f"{summary['gradients']:7.2f} [{summary['low']:.2f}, {summary['high']:.2f}]"
    return f"{spread:<26} {summary['status']:<6} {numbers}  {summary.get('setting', '')}"


def describe(case: Case) -> dict[str, Any]:
    """Describe a case for the record."""
    return {
        "name": case.name,
        "title": case.title,
        "parameters": case.P,
        "examples": case.N,
        "batches": len(case.batches),
        "mode": case.mode,
        "dtype": str(case.dtype),
        "gradient_seconds": unit(partial(gradient, case.copy())),
        "products_taken": case.products,
    }


def entry(key: str, peers: Mapping[str, Peer], lap: Lap) -> dict[str, Any]:
    """One competitor's result in a task."""
    name, _, variant = key.partition(":")
    peer = peers[name]
    return {
        "peer": name,
        "name": peer.name,
        "variant": variant,
        "note": peer.notes,
        "version": peer.version,
        **lap.summary(),
    }


if __name__ == "__main__":
    sys.exit(main())
