"""Progress of a study or a measurement, on the terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from lossgeom.cli.messages import is_first, say

if TYPE_CHECKING:
    from lossgeom.bounds import Epoch
    from lossgeom.lab.runner import Progress as StudyProgress
    from lossgeom.metrics.geometry import Part
    from lossgeom.recording.record import Record

Row = TypeVar("Row")


def _bar(*columns: ProgressColumn) -> Progress:
    """Make a progress bar that is shown on terminals only."""
    console = Console(stderr=True)
    return Progress(*columns, console=console, disable=not (console.is_terminal and is_first()))


@contextmanager
def study_display() -> Iterator[Callable[[StudyProgress], None]]:
    """Show a bar with the time left on a terminal; elsewhere a line for each run that has ended."""
    first: float | None = None  # what was done already
    since = 0.0, 0.0  # when this began to do more, which is after all is imported, and from where
    bar = _bar(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[told]}"),
    )

    def show(progress: StudyProgress) -> None:
        nonlocal first, since
        now, done = time.monotonic(), progress.done
        told = f"{progress.finished} of {progress.runs} runs are finished"
        if first is None:
            first = done
            if bar.disable and progress.finished:
                say(f"{told} already")
        if progress.at_end:
            told += f", {progress.at_end} measured at the end"
        if since[1] <= first:
            since = now, done
        elif done > since[1] and (done < 1 or not progress.at_end):
            left = (now - since[0]) * (1 - done) / (done - since[1])
            told += f", about {timedelta(seconds=round(left))} left"
        bar.update(task, completed=done, told=told, visible=True)
        if bar.disable and progress.latest:
            say(f"{told}: {', '.join(progress.latest)}")

    with bar:
        task = bar.add_task("training", total=1, told="", visible=False)
        yield show


@contextmanager
def part_display(record: Record) -> Iterator[Callable[[Part], AbstractContextManager[None]]]:
    """Show a bar on a terminal; elsewhere a line for each part of a measurement that begins."""
    bar = _bar(
        BarColumn(20),
        TextColumn("{task.completed:.0f} of {task.total:.0f}"),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )

    @contextmanager
    def around(part: Part) -> Iterator[None]:
        plan = record.manifest["planned"]
        total = len({quantity["part"] for quantity in plan})
        done = len({q["part"] for q in plan if (0, q["metric"]) in record.measured})
        text = part.title + _duration(part.products, _seconds_per_product(record))
        if bar.disable:
            say(f"measuring {done + 1} of {total}: {text}")
        bar.update(task, total=total, completed=done, description=text, visible=True)
        yield
        bar.update(task, completed=done + 1, description="")

    with bar:
        task = bar.add_task("", visible=False)
        yield around


def _duration(products: int, seconds: float | None) -> str:
    if not products:
        return ""
    at_most = f", {products} matrix-vector products at most"
    return at_most if seconds is None else f"{at_most}, about {products * seconds:.2g} s"


def _seconds_per_product(record: Record) -> float | None:
    """How long the last product took; before the first one, how long two gradients took."""
    rows = record.rows()
    for row in reversed(rows):
        if row["matvecs"]:
            return float(row["seconds"] / row["matvecs"])
    gradients = [2 * row["seconds"] for row in rows if row["metric"] == "gradient_norm"]
    return gradients[-1] if gradients else None


def through(rows: Sequence[Row], name: str) -> Iterator[Row]:
    """Go through the rows of a run, with a bar on a terminal."""
    bar = _bar(
        BarColumn(20),
        TextColumn("{task.completed:.0f} of {task.total:.0f} rows"),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with bar:
        yield from bar.track(rows, description=name)


@contextmanager
def epoch_display(epochs: int) -> Iterator[Callable[[Epoch], None]]:
    """Show a bar with the time left on a terminal; elsewhere a line for every tenth of it."""
    bar = _bar(
        BarColumn(20),
        TextColumn("epoch {task.completed:.0f} of {task.total:.0f}"),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    tenth = max(1, epochs // 10)

    def show(found: Epoch) -> None:
        epoch, bits = found.epoch, f"loss {found.surrogate:.3f} bits"
        text = f"{bits} + complexity {found.complexity:.3f}, KL {found.kl:.4g}"
        bar.update(task, completed=epoch, description=text)
        if bar.disable and (epoch % tenth == 0 or epoch == epochs):
            say(f"epoch {epoch} of {epochs}: {text}")

    with bar:
        task = bar.add_task("", total=epochs)
        yield show
