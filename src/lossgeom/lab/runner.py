"""Run what is not finished of a study into one folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lossgeom.lab.executors import Executor, Job, Processes, is_over, message
from lossgeom.lab.studies._network import idle_settings, load
from lossgeom.lab.studies._study import FIRST_SEED, SeedRun, Study
from lossgeom.messages.checks import check_at_least
from lossgeom.messages.extras import require_lab
from lossgeom.recording.claim import Claim
from lossgeom.recording.folder import CLAIMS_FILE, TABLES, run_folder
from lossgeom.recording.for_report import ForReport
from lossgeom.recording.json_files import write_json
from lossgeom.recording.record import Record
from lossgeom.recording.record_format import RecordError
from lossgeom.recording.tables import require_tables, write_tables

NAMED = 3  # runs with the same error of which one is told, of more than four


@dataclass(frozen=True)
class Progress:
    """How far a study has got.

    Attributes:
        runs: how many are planned.
        finished: how many of those are over.
        done: the share of the steps of all runs that are taken, so that a long run counts for more.
        latest: names of the runs that have ended since the last report.
        at_end: how many have taken their steps, and are measured where these end.
    """

    runs: int
    finished: int
    done: float
    latest: tuple[str, ...] = ()
    at_end: int = 0


class FailedRunsError(RuntimeError):
    """Some runs of a study ended with an error; the others are over, and the claims judged."""


def run_study(
    study: Study,
    config: Any,
    out: Path,
    *,
    seeds: int,
    executor: Executor | None = None,
    command: str | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
    parquet: bool = False,
) -> list[Claim]:
    """Train what is not finished, judge the claims, and write ``claims.json`` and ``runs.csv``.

    What no run can do without, data and libraries, is asked for before the first one. Each run has
    a record in ``out/runs``. Runs that are finished or diverged are not repeated; one that was
    stopped goes on from its last checkpoint, and one that failed is tried again. Every run has one
    thread, so that the numbers do not depend on the number of workers. Claims are about the seeds
    all of whose runs are over.

    Args:
        study: what to run.
        config: an instance of ``study.Config``.
        out: a new or empty folder, or one in which this study was run with this config.
        seeds: how many; more may be asked for later.
        executor: what runs them; by default as many processes as there are cores.
        command: what repeats this on a command line, for the report.
        on_progress: called with where the study is, about twice a second.
        parquet: write its tables as Parquet, too; see :func:`lossgeom.frames`.

    Raises:
        ImportError: without the extra ``lab``, of which a study needs all, sooner or later; or
            without the one that its data or Parquet need.
        ValueError: for fewer than one seed, or data with fewer examples than are asked for.
        FileNotFoundError: if files of its data are missing; it says where to get them.
        RecordError: if the folder is not for this study and config, or cannot be written.
        FailedRunsError: in the end, if runs failed; it names them, at most four for each error.
    """
    require_lab()
    if parquet:
        require_tables()
    check_at_least(1, seeds=seeds)
    runs = study.plan(config, seeds)
    if not all(is_over(run_folder(out, run.name)) for run in runs):
        _check_data(study, config)
    with Record.create(
        out, {"study": study.name, **asdict(config)}, kind="study", resume=True
    ) as record:
        record.update(status="running", seeds=seeds)
        record.describe(
            ForReport(
                title=study.title,
                source=study.source,
                glossary=study.glossary,
                command=command,
                figure=study.figure,
                scatter=study.scatter,
                sweep=study.sweep,
                planned_runs=tuple(run.name for run in runs),
                idle_settings=idle_settings(asdict(config)),
            )
        )
        for name in (CLAIMS_FILE, *TABLES):
            (out / name).unlink(missing_ok=True)  # it may speak of fewer runs
        failed = _run_missing(study, runs, out, executor or Processes(), on_progress)
        write_tables(out, [record], parquet=parquet)
        found = _judge(study, config, runs, record)
        record.finish("failed" if failed else "finished")
    if failed:
        raise FailedRunsError(_told(failed, len(runs))) from next(iter(failed.values()))
    return found


def _judge(study: Study, config: Any, runs: Sequence[SeedRun[Any]], record: Record) -> list[Claim]:
    """Write the claims and what they say in short, or that they could not be judged."""
    try:
        over = [path for run in runs if is_over(path := run_folder(record.path, run.name))]
        found = study.judge(config, [Record.open(path) for path in over])
        write_json(record.path / CLAIMS_FILE, [claim.to_json() for claim in found])
        record.describe(ForReport(summary=study.summary(config, found)))
    except Exception as error:
        told = f"The claims could not be judged: {message(error)}"
        record.describe(ForReport(summary=told))
        record.finish("failed")
        raise
    return found


def _check_data(study: Study, config: Any) -> None:
    """Load the data of a study once, for an error before all runs have it."""
    network = vars(config).get("network")
    if network is not None:
        plain = replace(network, target_scale=1.0)  # of labels, there is no other
        (study.data or load)(plain, FIRST_SEED)


def _run_missing(
    study: Study,
    runs: Sequence[SeedRun[Any]],
    out: Path,
    executor: Executor,
    on_progress: Callable[[Progress], None],
) -> dict[str, Exception]:
    """Run what is not over, and return the errors of the runs that failed, by name."""
    there = out.resolve()  # wherever the worker is
    jobs = [Job(study.name, run, run_folder(there, run.name)) for run in runs]
    missing = {job.run.name: job for job in jobs if not is_over(job.path)}
    steps = {run.name: study.steps(run) for run in runs}
    failed = dict[str, Exception]()

    def tell(latest: tuple[str, ...] = ()) -> None:
        left = [steps[name] - _taken(job, steps[name]) for name, job in missing.items()]
        done = 1 - sum(left) / sum(steps.values())
        finished = len(runs) - len(missing)
        on_progress(Progress(len(runs), finished, done, latest, left.count(0)))

    tell()
    if not missing:
        return failed
    with closing(executor.completed(list(missing.values()))) as completed:
        for ended in completed:
            latest = () if ended is None else (ended[0].run.name,)
            for name in latest:
                del missing[name]
            if ended is not None and ended[1] is not None:
                failed[ended[0].run.name] = ended[1]
                ended[0].give_up(ended[1])
            tell(latest)
    return failed


def _told(failed: Mapping[str, Exception], runs: int) -> str:
    """Name the runs that failed, those with the same error together."""
    of_error: dict[str, list[str]] = {}
    for name, error in failed.items():
        of_error.setdefault(message(error), []).append(name)
    errors = "; ".join(f"{_some(names)} failed: {text}" for text, names in of_error.items())
    return (
        f"{len(failed)} of {runs} runs failed, and the same command tries them again; what is "
        f"finished is kept: {errors}"
    )


def _some(names: Sequence[str]) -> str:
    """All names, or the first of them and how many others there are."""
    others = len(names) - NAMED
    return ", ".join(names) if others < 2 else f"{', '.join(names[:NAMED])} and {others} others"


def _taken(job: Job, steps: int) -> int:
    """How many of the steps of a run are taken, read off its record."""
    try:
        measured = Record.open(job.path).measured
    except (RecordError, OSError):  # not there yet, or just being replaced by another machine
        return 0
    return min(steps, max((step for step, _ in measured), default=0))
