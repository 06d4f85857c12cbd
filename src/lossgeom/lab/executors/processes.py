"""Processes on this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import wait as wait_for_end

from lossgeom.lab.executors._engine import (
    POLL_SECONDS,
    THREADS,
    LostError,
    completed,
    environment,
)
from lossgeom.lab.executors._job import Failure, Job, attempt
from lossgeom.messages.checks import check_at_least

DIED = (
    "its process died, perhaps for lack of memory or, in a script, of a line "
    "\"if __name__ == '__main__':\" around what is run"
)
Attempt = Future[Failure | None]


@dataclass(frozen=True)
class Processes:
    """Processes on this machine, each with one thread, so that numbers depend on none of this.

    That goes for torch and for the libraries below NumPy and SciPy. There are never more processes
    than cores.

    A process that dies, as where memory runs out, costs its own run only: that is tried again, up
    to three times in all, and goes on from its last checkpoint.

    Attributes:
        workers: how many at most; by default as many as there are cores.

    Raises:
        ValueError: for fewer than one.

    >>> Processes(workers=2).workers
    2
    """

    workers: int | None = None

    def __post_init__(self) -> None:
        if self.workers is not None:
            check_at_least(1, workers=self.workers)

    def completed(self, jobs: Sequence[Job]) -> Generator[tuple[Job, Exception | None] | None]:
        """Yield jobs as they end; see :class:`lossgeom.lab.executors.Executor`."""
        cores = _cores()
        at_once = min(self.workers or cores, cores, len(jobs))
        return completed(_Workers(at_once), jobs, at_once)


class _Workers:
    """Processes that run a job each at a time, with a new one in the place of one that dies."""

    def __init__(self, number: int) -> None:
        self.idle = [_Worker() for _ in range(number)]
        self.working: dict[Attempt, _Worker] = {}

    def start(self, jobs: Sequence[Job]) -> Sequence[Attempt]:
        begun = []
        for job in jobs:
            worker = self.idle.pop()
            begun.append(worker.start(job))
            self.working[begun[-1]] = worker
        return begun

    def over(self, tasks: Sequence[Attempt]) -> Sequence[Attempt]:
        return list(wait(tasks, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED).done)

    def outcome(self, task: Attempt) -> Failure | None:
        worker = self.working.pop(task)
        try:
            failure = task.result()
        except BrokenProcessPool as error:
            self.idle.append(_Worker())
            raise LostError(DIED) from error
        self.idle.append(worker)
        return failure

    def end(self, tasks: Sequence[Attempt]) -> None:  # noqa: ARG002
        for worker in [*self.idle, *self.working.values()]:
            worker.end()


class _Worker:
    """A process that runs one job after another; it is started with the first."""

    def __init__(self) -> None:
        self.pool = ProcessPoolExecutor(
            1, mp_context=multiprocessing.get_context("spawn"), initializer=_start
        )

    def start(self, job: Job) -> Attempt:
        """Begin with a job."""
        try:
            with environment(THREADS), _no_interrupts():  # the process may be started here
                return self.pool.submit(attempt, job)
        except BrokenProcessPool as error:  # it died since the last one
            lost: Attempt = Future()
            lost.set_exception(error)
            return lost

    def end(self) -> None:
        """End the process, whatever it does."""
        processes = list((self.pool._processes or {}).values())
        self.pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Delay Ctrl-C, and hide it from the processes started meanwhile, which take long to import.

    Where that cannot be, as on Windows, they hear of it, and end.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # which lets Ctrl-C through again when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start() -> None:
    """Let a worker ignore Ctrl-C, and end it when its parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait_for_end([sentinel])
    os._exit(1)
