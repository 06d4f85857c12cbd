"""``python -m benchmarks.device``: a GPU beside the CPU, and beside other libraries."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import device_checks, device_settings, device_speed
from benchmarks.device_problems import Check
from benchmarks.machine import commit, machine, now
from benchmarks.run import say
from benchmarks.table import OF_DEVICE, markdown, publish
from benchmarks.timing import said

SCHEMA, FILE = 1, OF_DEVICE
BEGIN, END = "<!-- device: begin -->", "<!-- device: end -->"
NAMING = ("name", "status", "case", "task", "peer")
GROUPS = (device_settings.of_settings, *device_checks.GROUPS)
HELP = """\
Compute on a device what is computed on the CPU, and say how far they differ; then time products,
eigenpairs, norms of Jacobians and tracking on it beside other libraries. Six minutes on an H100."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Share:
    """Time that is left, and the part that is done of everything.

    Attributes:
        until: when it ends.
        part: from which check on, and of how many one is done.
        matching: what the names of those contain.
    """

    until: float
    part: tuple[int, None, int]
    matching: str

    @property
    def over(self) -> bool:
        """Whether there is none."""
        return time.monotonic() > self.until


def judged(check: Check, device: str) -> Row:
    """Compute a thing in both places; an error that both raise is a result, too."""
    start = time.monotonic()
    found, expected = attempt(check, device), attempt(check, "cpu")
    row: Row = {"name": check.name, "tolerance": check.tolerance}
    if isinstance(found, Tensor) and isinstance(expected, Tensor):
        row |= compared(found, expected, check.tolerance)
        if check.repeats:
            again = attempt(check, device)
            row["same_bits"] = isinstance(again, Tensor) and torch.equal(found, again)
    elif isinstance(found, Exception) and (check.may_refuse or type(found) is type(expected)):
        row |= {"status": "raises", "message": said(found)}
    else:
        row["status"] = "error"
        for where, thing in ((device, found), ("cpu", expected)):
            if isinstance(thing, Exception):
                row[f"on {where}"] = said(thing)
    return {**row, "seconds": round(time.monotonic() - start, 3)}


def attempt(check: Check, device: str) -> Tensor | Exception:
    """The numbers, or the error that is raised."""
    try:
        return check.run(device)
    except Exception as error:  # every one is a result
        return error


def compared(found: Tensor, expected: Tensor, tolerance: float) -> Row:
    """The error relative to the norm of what is right."""
    if found.shape != expected.shape:
        return {"status": "wrong", "message": f"{len(found)} numbers, not {len(expected)}"}
    if not len(found):
        return {"status": "raises", "message": "not defined, nor on the CPU"}
    error = float((found - expected).norm() / expected.norm().clamp(min=1e-30))
    same = bool(((found == expected) | (found.isnan() & expected.isnan())).all())
    error = 0.0 if same else error
    ratio = error / tolerance if tolerance else float(error > 0)
    return {"status": "right" if error <= tolerance else "wrong", "error": error, "ratio": ratio}


def checked(device: str, groups: Iterable[Any], share: Share, write: Callable[[Row], None]) -> None:
    """Judge a part of all, a group after the other, as long as there is time."""
    for group in groups:
        start, rows = time.monotonic(), []
        some = (check for check in group() if share.matching in check.name)
        for check in islice(some, *share.part):
            if share.over:
                say(f"no time for {check.name} and what follows")
                return
            row = judged(check, device)
            write(row)
            rows.append(row)
            if row["status"] in ("wrong", "error"):
                say(f"  {line(row)}")
        tally = Counter(row["status"] for row in rows)
        said_of = ", ".join(f"{count} {status}" for status, count in tally.items())
        say(f"{group.__name__}: {said_of} ({time.monotonic() - start:.0f} s)")


def line(row: Row) -> str:
    """A result in a line."""
    told = {key: value for key, value in row.items() if key not in NAMING}
    parts = [f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in told.items()]
    name = row.get("name") or " ".join(row.get(key, "") for key in ("case", "task", "peer"))
    return f"{row.get('status', '')} {name}: {', '.join(parts)}"


def about(device: str) -> Row:
    """The machine with its GPU."""
    known: Row = dict(machine())
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        known |= {
            "gpu": properties.name,
            "gigabytes": round(properties.total_memory / 1e9, 1),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        }
    return known


def run(given: argparse.Namespace) -> Path:
    """Check and time; write what is known after every group, so that a stop loses little."""
    known, start, device, quick = about(given.device), time.monotonic(), given.device, given.quick
    first, parts = map(int, given.part.split("/"))
    name = re.sub(r"[^a-z0-9]+", "-", str(known.get("gpu", known["cpu"])).lower()).strip("-")
    file: Path = given.out / name / FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    record: Row = {"schema": SCHEMA, "machine": known, "date": now(), "commit": commit(),
                   "device": device, "quick": quick, "checks": [], "speed": []}  # fmt: skip

    def write() -> None:
        record["minutes"] = round((time.monotonic() - start) / 60, 2)
        file.write_text(json.dumps(record, indent=1) + "\n")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for what in given.only.split(","):
            if what in ("speed", *device_speed.CASES):
                names = device_speed.CASES if what == "speed" else (what,)
                for row in device_speed.times(torch.device(device), names, quick, say):
                    record["speed"].append(row)
                    say(f"  {line(row)}")
                    write()
            else:
                groups = [group for group in GROUPS if what in ("checks", group.__name__)]
                share = Share(
                    time.monotonic() + given.seconds, (first - 1, None, parts), given.matching
                )
                checked(device, groups, share, record["checks"].append)
                write()
    return file


def table(record: Row) -> str:
    """The results as tables."""
    tally = Counter((row["name"].split("/")[0], row["status"]) for row in record["checks"])
    groups = list(dict.fromkeys(group for group, _ in tally))
    worst = {
        group: max(
            (
                row.get("ratio", 0.0)
                for row in record["checks"]
                if row["name"].startswith(f"{group}/")
            ),
            default=0.0,
        )
        for group in groups
    }
    states = ("right", "raises", "wrong", "error")
    rows = [[g, *(str(tally[g, s] or "") for s in states), f"{worst[g]:.1e}"] for g in groups]
    times = [
        [row["case"], row["task"], row["peer"],
         *(f"{1e3 * row[key]:.1f}" if key in row else "" for key in ("first", "next", "seconds")),
         f"{row['gigabytes']:.1f}" if "gigabytes" in row else "",
         f"{row['error']:.0e}" if "error" in row else "", row["status"]]
        for row in record["speed"] if "peer" in row
    ]  # fmt: skip
    parts = [
        markdown(
            ["", "right", "raises", "wrong", "error", "largest error by tolerance"],
            rows,
        ),
        markdown(
            ["case", "task", "", "first, ms", "next, ms", "all, ms", "GB", "error", ""], times
        ),
    ]
    return "\n\n".join(parts)


def tables(results: Path) -> str:
    """What every machine found."""
    files = sorted(results.glob(f"*/{FILE}"))
    if not files:
        raise FileNotFoundError(f"expected results in {results}/MACHINE/{FILE}, got none")
    records = [json.loads(file.read_text()) for file in files]
    return "\n\n".join(f"{title(record)}\n\n{table(record)}" for record in records)


def title(record: Row) -> str:
    """What was measured on, and of which sizes."""
    known = record["machine"]
    sizes = [
        f"- `{row['case']}`: {row['title']}; P = {row['P']:,}, a gradient takes "
        f"{1e3 * row['seconds']:.1f} ms"
        for row in record["speed"]
        if row["task"] == "gradient"
    ]
    about = (
        f"{known.get('gpu', known['cpu'])}, {record['date'][:10]}, commit {record['commit']}, "
        f"torch {known['versions']['torch']}, CUDA {known.get('cuda', 'none')}, float32 without "
        "TF32."
    )
    return "\n".join([about, "", *sizes])


def main(arguments: list[str] | None = None) -> int:
    """Run; return 1 if something is wrong on the device."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.device", description=HELP)
    parser.add_argument("--device", default="cuda", help="cuda; cpu compares it with itself")
    parser.add_argument(
        "--only", default="checks,speed", help="checks or speed, a group or a case of them"
    )
    parser.add_argument("--seconds", type=float, default=200.0, help="that checks may take")
    parser.add_argument("--part", default="1/1", help="of the checks, for several processes")
    parser.add_argument("--matching", default="", help="what the names of checks contain")
    parser.add_argument("--quick", action="store_true", help="small sizes, to try everything")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--into", type=Path, help="run nothing, put tables of --out into a page")
    given = parser.parse_args(arguments)
    if given.into:
        return publish(partial(tables, given.out), given.into, BEGIN, END)
    if given.device == "cuda" and not torch.cuda.is_available():
        say("error: expected a GPU that torch can use, got none; try --device cpu --quick")
        return 2
    file = run(given)
    record = json.loads(file.read_text())
    say(f"{table(record)}\n\nwrote {file}")
    return int(any(row["status"] in ("wrong", "error") for row in record["checks"]))


if __name__ == "__main__":
    sys.exit(main())
