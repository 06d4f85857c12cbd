"""Run what is not finished of a study, in parallel processes, into one folder."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import wait as wait_for_end
from pathlib import Path
from typing import Any

import torch

from lossgeom.claim import Claim
from lossgeom.extras import require_lab
from lossgeom.lab.studies import STUDIES
from lossgeom.lab.studies._network import idle_settings
from lossgeom.lab.studies._study import SeedRun, Study
from lossgeom.recording.folder import is_record, run_folder
from lossgeom.recording.for_report import ForReport
from lossgeom.recording.json_files import write_json
from lossgeom.recording.record import Record

POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Progress:
    """How far a study has got.

    Attributes:
        runs: how many are planned.
        finished: how many of those are over.
        done: the same, with the parts of those that are under way.
        latest: names of the runs that have ended since the last report.
    """

    runs: int
    finished: int
    done: float
    latest: tuple[str, ...] = ()


def run_study(
    study: Study,
    config: Any,
    out: Path,
    *,
    seeds: int,
    workers: int | None = None,
    command: str | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> list[Claim]:
    """Train what is not finished, judge the claims, and write ``claims.json``.

    Each run has a record in ``out/runs``. Runs that are finished or diverged are not repeated;
    one that was stopped goes on from its last checkpoint. Every run has one thread, so that the
    numbers do not depend on the number of workers.

    Args:
        study: what to run.
        config: an instance of ``study.Config``.
        out: a new or empty folder, or one in which this study was run with this config.
        seeds: how many; more may be asked for later.
        workers: processes; by default as many as there are cores.
        command: what repeats this on a command line, for the report.
        on_progress: called with where the study is, about twice a second.

    Raises:
        ImportError: without the extra ``lab``, of which a study needs all, sooner or later.
        ValueError: for fewer than one seed or worker.
        RecordError: if the folder is not for this study and config, or cannot be written.
    """
    require_lab()
    workers = _cores() if workers is None else workers
    if seeds < 1 or workers < 1:
        raise ValueError(f"expected at least one seed and worker, got {seeds} and {workers}")
    runs = study.plan(config, seeds)
    with Record.create(
        out, {"study": study.name, **asdict(config)}, kind="study", resume=True
    ) as record:
        record.update(status="running", seeds=seeds)
        record.describe(
            ForReport(
                title=study.title,
                source=study.source,
                command=command,
                figure=study.figure,
                scatter=study.scatter,
                planned_runs=tuple(run.name for run in runs),
                idle_settings=idle_settings(asdict(config)),
            )
        )
        _run_missing(study, runs, out, workers, on_progress)
        records = [Record.open(run_folder(out, run.name)) for run in runs]
        found = study.judge(config, records)
        write_json(out / "claims.json", [claim.to_json() for claim in found])
        record.describe(ForReport(summary=study.summary(config, found)))
        record.finish()
    return found


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _run_missing(
    study: Study,
    runs: Sequence[SeedRun[Any]],
    out: Path,
    workers: int,
    on_progress: Callable[[Progress], None],
) -> None:
    missing = [run for run in runs if not _is_over(run_folder(out, run.name))]
    finished = len(runs) - len(missing)
    on_progress(Progress(len(runs), finished, finished))
    if not missing:
        return
    (out / "claims.json").unlink(missing_ok=True)  # it speaks of fewer runs
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        min(workers, len(missing)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
    )
    try:
        with _no_interrupts():  # workers are started here
            names = {
                pool.submit(_run_one, study.name, run, run_folder(out, run.name)): run
                for run in missing
            }
        pending: set[Future[None]] = set(names)
        while pending:
            over, pending = wait(pending, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
            for future in over:
                _check(future, names[future])
            finished += len(over)
            latest = tuple(names[future].name for future in over)
            shares = [_share(study, names[future], out) for future in pending if future.running()]
            on_progress(Progress(len(runs), finished, finished + sum(shares), latest))
    except BaseException:
        for worker in set(multiprocessing.active_children()) - others:
            worker.terminate()
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Delay Ctrl-C, and hide it from the processes started meanwhile, which take long to import."""
    resource_tracker.ensure_running()  # which lets Ctrl-C through again when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _check(future: Future[None], run: SeedRun[Any]) -> None:
    try:
        future.result()
    except BrokenProcessPool as error:
        raise RuntimeError(
            f"a worker process died while {run.name} was under way, perhaps for lack of memory; "
            "what is finished is kept, and the same command goes on from there"
        ) from error
    except Exception as error:
        raise RuntimeError(f"the run {run.name} failed: {error}") from error


def _is_over(path: Path) -> bool:
    return is_record(path) and Record.open(path).is_over


def _share(study: Study, run: SeedRun[Any], out: Path) -> float:
    """The part of a run that is done, read off its record."""
    path = run_folder(out, run.name)
    if not is_record(path):
        return 0.0
    measured = Record.open(path).measured
    return max((step for step, _ in measured), default=0) / study.steps(run)


def _run_one(study: str, run: SeedRun[Any], path: Path) -> None:
    with Record.create(path, run.settings, resume=True) as record:
        record.describe(ForReport(idle_settings=idle_settings(run.settings["study"])))
        STUDIES[study].run(run, record)


def _start_worker() -> None:
    """Give a worker one thread, let it ignore Ctrl-C, and end it when its parent ends."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait_for_end([sentinel])
    os._exit(1)
