"""How far a study or a measurement is, on the terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from lossgeom.cli.messages import say

if TYPE_CHECKING:
    from lossgeom.lab.runner import Progress as StudyProgress
    from lossgeom.metrics.geometry import Part
    from lossgeom.recording.record import Record


class ProgressDisplay:
    """A bar with the time left on a terminal; elsewhere a line for each run that has ended."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.started = time.monotonic()
        self.first: float | None = None
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[finished]} of {task.total:.0f} runs"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task: TaskID | None = None

    def __enter__(self) -> ProgressDisplay:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def __call__(self, progress: StudyProgress) -> None:
        """Show how far a study is now."""
        if self.task is None:
            self.task = self.bar.add_task("training", finished=0, total=progress.runs)
        self.bar.update(
            self.task,
            completed=progress.done,
            finished=progress.finished,
        )
        if self.console.is_terminal:
            return
        if self.first is None:
            self.first = progress.done
            if progress.finished:
                say(f"{progress.finished} of {progress.runs} runs are finished already")
        elif progress.latest:
            elapsed = time.monotonic() - self.started
            left = elapsed * (progress.runs - progress.done) / (progress.done - self.first)
            say(
                f"{progress.finished} of {progress.runs} runs are finished, about {left:.0f} s "
                f"left: {', '.join(progress.latest)}"
            )


class PartDisplay:
    """A bar on a terminal, elsewhere a line for each part of a measurement that begins."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.console = Console(stderr=True)
        self.bar = Progress(
            BarColumn(20),
            TextColumn("{task.completed:.0f} of {task.total:.0f}"),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task: TaskID | None = None

    def __enter__(self) -> PartDisplay:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    @contextmanager
    def __call__(self, part: Part) -> Iterator[None]:
        """Say what is measured now, and how long that may take."""
        plan = self.record.manifest["planned"]
        names = [quantity["part"] for quantity in plan]
        done = {q["part"] for q in plan if (0, q["metric"]) in self.record.measured}
        number, total = len(done) + 1, len(set(names))
        text = part.title + _duration(part.products, _seconds_per_product(self.record))
        if not self.console.is_terminal:
            say(f"measuring {number} of {total}: {text}")
        elif self.task is None:
            self.task = self.bar.add_task(text, total=total, completed=number - 1)
        else:
            self.bar.update(self.task, completed=number - 1, description=text)
        yield
        if self.task is not None:
            self.bar.update(self.task, completed=number, description="")


def _duration(products: int, seconds: float | None) -> str:
    if not products:
        return ""
    at_most = f", {products} matrix-vector products at most"
    return at_most if seconds is None else f"{at_most}, about {products * seconds:.2g} s"


def _seconds_per_product(record: Record) -> float | None:
    """As it was lately; before that, two gradients."""
    rows = record.rows()
    for row in reversed(rows):
        if row["matvecs"]:
            return float(row["seconds"] / row["matvecs"])
    gradients = [2 * row["seconds"] for row in rows if row["metric"] == "gradient_norm"]
    return gradients[-1] if gradients else None
