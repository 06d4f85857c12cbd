"""Run what is not finished of a study into one folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lossgeom.checks import check_at_least
from lossgeom.claim import Claim
from lossgeom.extras import require_lab
from lossgeom.lab.executors import Executor, Job, Processes, message
from lossgeom.lab.studies._network import idle_settings
from lossgeom.lab.studies._study import SeedRun, Study
from lossgeom.recording.folder import is_record, run_folder
from lossgeom.recording.for_report import ForReport
from lossgeom.recording.json_files import write_json
from lossgeom.recording.record import Record

NAMED = 3  # runs with the same error of which one is told, of more than four


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
) -> list[Claim]:
    """Train what is not finished, judge the claims, and write ``claims.json``.

    Each run has a record in ``out/runs``. Runs that are finished or diverged are not repeated;
    one that was stopped goes on from its last checkpoint, and one that failed is tried again. Every
    run has one thread, so that the numbers do not depend on the number of workers. Claims are about
    the seeds all of whose runs are over.

    Args:
        study: what to run.
        config: an instance of ``study.Config``.
        out: a new or empty folder, or one in which this study was run with this config.
        seeds: how many; more may be asked for later.
        executor: what runs them; by default as many processes as there are cores.
        command: what repeats this on a command line, for the report.
        on_progress: called with where the study is, about twice a second.

    Raises:
        ImportError: without the extra ``lab``, of which a study needs all, sooner or later.
        ValueError: for fewer than one seed.
        RecordError: if the folder is not for this study and config, or cannot be written.
        FailedRunsError: in the end, if runs failed; it names them, at most four for each error.
    """
    require_lab()
    check_at_least(1, seeds=seeds)
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
                sweep=study.sweep,
                planned_runs=tuple(run.name for run in runs),
                idle_settings=idle_settings(asdict(config)),
            )
        )
        failed = _run_missing(study, runs, out, executor or Processes(), on_progress)
        over = [path for run in runs if _is_over(path := run_folder(out, run.name))]
        found = study.judge(config, [Record.open(path) for path in over])
        write_json(out / "claims.json", [claim.to_json() for claim in found])
        record.describe(ForReport(summary=study.summary(config, found)))
        record.finish("failed" if failed else "finished")
    if failed:
        raise FailedRunsError(_told(failed, len(runs))) from next(iter(failed.values()))
    return found


def _run_missing(
    study: Study,
    runs: Sequence[SeedRun[Any]],
    out: Path,
    executor: Executor,
    on_progress: Callable[[Progress], None],
) -> dict[str, Exception]:
    """Run what is not over, and return the errors of the runs that failed, by name."""
    jobs = [Job(study.name, run, run_folder(out, run.name)) for run in runs]
    missing = {job.run.name: job for job in jobs if not _is_over(job.path)}
    on_progress(Progress(len(runs), len(runs) - len(missing), len(runs) - len(missing)))
    failed = dict[str, Exception]()
    if not missing:
        return failed
    (out / "claims.json").unlink(missing_ok=True)  # it speaks of fewer runs
    with closing(executor.completed(list(missing.values()))) as completed:
        for ended in completed:
            latest = () if ended is None else (ended[0].run.name,)
            for name in latest:
                del missing[name]
            if ended is not None and ended[1] is not None:
                failed[ended[0].run.name] = ended[1]
            finished = len(runs) - len(missing)
            done = finished + sum(_share(study, job) for job in missing.values())
            on_progress(Progress(len(runs), finished, done, latest))
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


def _is_over(path: Path) -> bool:
    """Whether a run has ended, and not by an error."""
    return is_record(path) and Record.open(path).status not in ("running", "failed")


def _share(study: Study, job: Job) -> float:
    """The part of a run that is done, read off its record."""
    if not is_record(job.path):
        return 0.0
    measured = Record.open(job.path).measured
    return max((step for step, _ in measured), default=0) / study.steps(job.run)
