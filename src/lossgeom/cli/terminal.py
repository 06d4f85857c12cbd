"""What is written to the terminal: results, messages, and how far a study is."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from lossgeom.lab.runner import Progress as StudyProgress


def show(text: str) -> None:
    """Print a result, to standard output."""
    print(text)  # noqa: T201


def say(text: str) -> None:
    """Print a message, to standard error."""
    print(f"lossgeom: {text}", file=sys.stderr, flush=True)  # noqa: T201


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
