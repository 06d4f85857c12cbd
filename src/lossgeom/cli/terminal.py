"""Progress of a study or a measurement, on the terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from lossgeom.cli.messages import say

if TYPE_CHECKING:
    from lossgeom.bounds import Epoch
    from lossgeom.lab.runner import Progress as StudyProgress
    from lossgeom.metrics.geometry import Part
    from lossgeom.recording.record import Record


def _bar(*columns: ProgressColumn) -> Progress:
    """Make a progress bar that is shown on terminals only."""
    console = Console(stderr=True)
    return Progress(*columns, console=console, disable=not console.is_terminal)


@contextmanager
def study_display() -> Iterator[Callable[[StudyProgress], None]]:
    """Show a bar with the time left on a terminal; elsewhere a line for each run that has ended."""
    started = time.monotonic()
    first: float | None = None
    bar = _bar(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[finished]} of {task.total:.0f} runs"),
        TimeRemainingColumn(),
    )

    def show(progress: StudyProgress) -> None:
        nonlocal first
        runs, finished, done = progress.runs, progress.finished, progress.done
        bar.update(task, total=runs, completed=done, finished=finished, visible=True)
        if bar.disable and first is None and finished:
            say(f"{finished} of {runs} runs are finished already")
        elif bar.disable and first is not None and progress.latest:
            left = (time.monotonic() - started) * (runs - done) / (done - first)
            names = ", ".join(progress.latest)
            say(f"{finished} of {runs} runs are finished, about {left:.0f} s left: {names}")
        first = done if first is None else first

    with bar:
        task = bar.add_task("training", finished=0, visible=False)
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
