"""Processes on this machine."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import wait as wait_for_end
from pathlib import Path

import torch

from lossgeom.lab.executors._job import Job, message
from lossgeom.messages.checks import check_at_least

POLL_SECONDS = 0.5
TRIES = 3  # of a run whose process dies
THREADS = (  # what the libraries that NumPy, SciPy and torch may be built with ask for
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)  # fmt: skip
DIED = (
    f"its process died {TRIES} times, perhaps for lack of memory or, in a script, of a line "
    "\"if __name__ == '__main__':\" around what is run"
)


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
        waiting, lost = list(reversed(jobs)), Counter[Path]()
        cores = _cores()
        idle = [_Worker() for _ in range(min(self.workers or cores, cores, len(jobs)))]
        working: dict[Future[None], tuple[Job, _Worker]] = {}
        try:
            while waiting or working:
                while waiting and idle:
                    job, worker = waiting.pop(), idle.pop()
                    working[worker.start(job)] = job, worker
                over, _ = wait(working, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
                for future in over:
                    job, worker = working.pop(future)
                    error = future.exception()
                    if not isinstance(error, BrokenProcessPool):
                        idle.append(worker)
                        yield job, error  # type: ignore[misc]
                        continue
                    idle.append(_Worker())
                    lost[job.path] += 1
                    if lost[job.path] < TRIES:
                        waiting.append(job)
                    else:
                        yield job, RuntimeError(DIED)
                yield None
        finally:
            for worker in [*idle, *(worker for _, worker in working.values())]:
                worker.end()


class _Worker:
    """A process that runs one job after another; it is started with the first."""

    def __init__(self) -> None:
        self.pool = ProcessPoolExecutor(
            1, mp_context=multiprocessing.get_context("spawn"), initializer=_start
        )

    def start(self, job: Job) -> Future[None]:
        """Begin with a job."""
        try:
            with _one_thread(), _no_interrupts():  # the process may be started here
                return self.pool.submit(_attempt, job)
        except BrokenProcessPool as error:  # it died since the last one
            lost = Future[None]()
            lost.set_exception(error)
            return lost

    def end(self) -> None:
        """End the process, whatever it does."""
        processes = list((self.pool._processes or {}).values())
        self.pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()


def _attempt(job: Job) -> None:
    """Run a job; raise its error in a form that reaches the other process."""
    try:
        job()
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))  # noqa: S301 - else the process is taken for dead
        except Exception:
            raise RuntimeError(message(error)) from None
        raise


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _one_thread() -> Iterator[None]:
    """Tell the processes started meanwhile, before they import anything, to have one thread."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            os.environ.update({} if value is None else {name: value})


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
    """Give a worker one thread, let it ignore Ctrl-C, and end it when its parent ends."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait_for_end([sentinel])
    os._exit(1)
