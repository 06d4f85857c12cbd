"""What all executors do: start jobs, and try again those whose worker is lost."""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

from lossgeom.lab.executors._job import Failure, Job, is_over
from lossgeom.recording.record_format import RecordError

Task = TypeVar("Task")

POLL_SECONDS = 0.5
TRIES = 3  # of a run whose worker is lost
SEEN_SECONDS = 90.0  # which is how long NFS may show a folder as it was
THREADS = dict.fromkeys(  # what the libraries that NumPy, SciPy and torch may be built with ask for
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS",
     "VECLIB_MAXIMUM_THREADS"), "1",
)  # fmt: skip


class LostError(Exception):
    """The worker of a job has ended, whatever the job would have come to."""


@runtime_checkable
class Engine(Protocol[Task]):
    """What runs jobs as its own tasks, and knows when these have ended."""

    def start(self, jobs: Sequence[Job]) -> Sequence[Task]:
        """Begin with jobs."""
        ...

    def over(self, tasks: Sequence[Task]) -> Sequence[Task]:
        """Those of the tasks that have ended, once there are any or some time has passed."""
        ...

    def outcome(self, task: Task) -> Failure | None:
        """What ``attempt`` has returned, in a task that has ended.

        Raises:
            LostError: if it did not come to return; the job is tried again.
        """
        ...

    def end(self, tasks: Sequence[Task]) -> None:
        """End what is under way."""
        ...


def completed(
    engine: Engine[Task], jobs: Sequence[Job], at_once: int
) -> Generator[tuple[Job, Exception | None] | None]:
    """Yield jobs as they end; see :class:`lossgeom.lab.executors.Executor`."""
    waiting, lost = deque(jobs), Counter[Path]()
    working: dict[Task, Job] = {}
    try:
        while waiting or working:
            room = min(len(waiting), at_once - len(working))
            if begun := [waiting.popleft() for _ in range(room)]:
                working.update(zip(engine.start(begun), begun, strict=True))
            for task in engine.over(list(working)):
                job = working.pop(task)
                error = _error(engine, task, job)
                lost[job.path] += isinstance(error, LostError)
                if not isinstance(error, LostError):
                    yield job, error
                elif lost[job.path] < TRIES:
                    waiting.appendleft(job)
                else:
                    yield job, RuntimeError(f"tried {TRIES} times: {error}")
            yield None
    finally:
        engine.end(list(working))


def _error(engine: Engine[Task], task: Task, job: Job) -> Exception | None:
    """What a task has failed of, be it that the record of its job is not to be seen from here."""
    try:
        failure = engine.outcome(task)
    except Exception as error:
        return error
    if failure is not None:
        return failure.here()
    until = time.monotonic() + SEEN_SECONDS
    while time.monotonic() < until:
        with suppress(RecordError, OSError):  # of a file that is just being replaced
            if is_over(job.path):
                return None
        time.sleep(POLL_SECONDS)
    return RuntimeError(
        f"it has ended, and {job.path} does not show it here; expected a folder that all machines "
        "share"
    )


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Give variables to the processes that are started meanwhile."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            os.environ.update({} if value is None else {name: value})
