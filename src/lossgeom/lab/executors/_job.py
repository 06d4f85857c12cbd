"""One run of a study, and what runs many of them."""

from __future__ import annotations

import pickle
import time
import traceback
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from lossgeom.lab.studies import STUDIES
from lossgeom.lab.studies._network import idle_settings
from lossgeom.lab.studies._study import SeedRun
from lossgeom.recording.crash_safety import LockedError
from lossgeom.recording.folder import is_record
from lossgeom.recording.for_report import ForReport
from lossgeom.recording.record import Record
from lossgeom.recording.record_format import RecordError

UNLOCKED_SECONDS = 120.0  # after which a file server has let go of the locks of a dead machine


@dataclass(frozen=True)
class Job:
    """A run and the folder of its record; nothing else moves between processes.

    Attributes:
        study: its name.
        run: which of its runs.
        path: the folder, which whoever runs it has to share.
    """

    study: str
    run: SeedRun[Any]
    path: Path

    def __call__(self) -> None:
        """Go on with the run from where its record ends; an error is recorded, and raised."""
        with Record.create(self.path, self.run.settings, resume=True) as record:
            record.update(left_out=None)  # by which it may have failed before
            record.describe(ForReport(idle_settings=idle_settings(self.run.settings["study"])))
            try:
                STUDIES[self.study].run(self.run, record)
            except Exception as error:
                _left_out(record, error)
                raise

    def give_up(self, error: Exception) -> None:
        """Record why a run is not tried again, where it could not do so itself."""
        with suppress(RecordError):
            if not is_record(self.path) or Record.open(self.path).status == "running":
                with Record.create(self.path, self.run.settings, resume=True) as record:
                    _left_out(record, error)


def _left_out(record: Record, error: BaseException) -> None:
    record.update(left_out=f"it failed: {message(error)}")
    record.finish("failed")


def is_over(path: Path) -> bool:
    """Whether a run has ended, and not by an error, as its record says."""
    return is_record(path) and Record.open(path).status not in ("running", "failed")


class ThereError(Exception):
    """An error where it was raised, which is in another process: its traceback."""


@dataclass(frozen=True)
class Failure:
    """The error of a run, as it moves between processes."""

    error: Exception
    traceback: str

    def here(self) -> Exception:
        """The error, with its traceback as its cause."""
        self.error.__cause__ = ThereError(f"\n{self.traceback}")
        return self.error


def attempt(job: Job, stopped: Callable[[], bool] = lambda: False) -> Failure | None:
    """Run a job in one thread, and return its error rather than raise it.

    So whatever is raised is of the engine that runs it. The lock of a record that a lost machine
    has left is waited for.

    Args:
        job: what to run.
        stopped: whether the engine has ended the process, to run the job once more.
    """
    torch.set_num_threads(1)
    until = time.monotonic() + UNLOCKED_SECONDS
    while True:
        try:
            job()
        except LockedError as error:
            if time.monotonic() > until:
                return Failure(error, traceback.format_exc())
        except (Exception, SystemExit) as error:
            if stopped():
                raise
            return Failure(_movable(error), traceback.format_exc())
        else:
            return None


def _movable(error: Exception | SystemExit) -> Exception:
    """The error, or its message where another process cannot unpickle it, or would end by it."""
    if isinstance(error, SystemExit):
        return RuntimeError(message(error))
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301
    except Exception:
        return RuntimeError(message(error))
    return error


def message(error: BaseException) -> str:
    """What an error says, with its kind unless its words were chosen for it to be read alone.

    >>> message(ValueError("no data")), message(KeyError("x")), message(MemoryError())
    ('no data', "KeyError: 'x'", 'MemoryError')
    """
    told = str(error)
    kind = type(error).__name__
    if not told:
        return kind
    return told if isinstance(error, (ValueError, RuntimeError, OSError)) else f"{kind}: {told}"


@runtime_checkable
class Executor(Protocol):
    """What runs jobs that do not depend on each other, somewhere."""

    def completed(self, jobs: Sequence[Job]) -> Generator[tuple[Job, Exception | None] | None]:
        """Yield each job when it has ended, with its error if there was one.

        ``None`` comes in between, about twice a second, so that who waits can look at how far the
        records are. A job whose worker is lost is tried again; an error that it raises is not.
        Closing the iterator ends what is under way.
        """
        ...
