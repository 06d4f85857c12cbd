"""Jobs of Slurm, through submitit."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from shutil import which
from typing import Any, Literal

from lossgeom.lab.executors._engine import POLL_SECONDS, THREADS, LostError, completed, environment
from lossgeom.lab.executors._job import Failure, Job, attempt
from lossgeom.messages.checks import check_at_least
from lossgeom.messages.extras import required

ARRAY = 1000  # jobs of one, which is as many as Slurm takes unless it is told otherwise
MINUTES = "60"


@dataclass(frozen=True)
class Slurm:
    """Jobs of Slurm, each with one core and one thread, as processes here would have.

    They are submitted from here as an array, and waited for. The folder of the study has to be one
    that all machines share, such as a home; what jobs print is in ``slurm`` in it.

    A job that comes to the end of its time goes back into the queue, up to three times, and goes on
    from its last checkpoint. One that is killed is tried again, up to three times in all.

    Attributes:
        options: of ``sbatch``, by their long names: ``{"partition": "main", "mem": "4G"}``, and
            ``True`` for one without a value; ``time`` in whole minutes, by default 60.
        workers: how many jobs at once at most.
        cluster: ``"local"`` for processes of submitit on this machine, to try this without Slurm.

    Raises:
        ImportError: without submitit, which the extra ``slurm`` brings.
        ValueError: for fewer than one worker, or a time that is not in minutes.
        RuntimeError: on a machine without Slurm.
    """

    options: Mapping[str, str | bool] = field(default_factory=dict)
    workers: int | None = None
    cluster: Literal["slurm", "local"] = "slurm"

    def __post_init__(self) -> None:
        if self.workers is not None:
            check_at_least(1, workers=self.workers)
        if not self._minutes.isdecimal():
            raise ValueError(
                f"expected time in whole minutes, such as time=120; got {self._minutes!r}"
            )
        if self.cluster == "slurm" and which("sbatch") is None:
            raise RuntimeError("expected the command sbatch, as on the login node of a cluster")
        required("submitit")

    @property
    def _minutes(self) -> str:
        return str(self.options.get("time", MINUTES))

    def completed(self, jobs: Sequence[Job]) -> Generator[tuple[Job, Exception | None] | None]:
        """Yield jobs as they end; see :class:`lossgeom.lab.executors.Executor`.

        Raises:
            RuntimeError: if Slurm refuses the jobs.
        """
        submitit = required("submitit")
        folder = jobs[0].path.parents[1] / "slurm"
        executor = submitit.AutoExecutor(folder, cluster=self.cluster)
        others = {name: value for name, value in self.options.items() if name != "time"}
        executor.update_parameters(
            name=f"lossgeom-{jobs[0].study}",
            timeout_min=int(self._minutes),
            cpus_per_task=1,
            slurm_additional_parameters=others,
        )
        return completed(_Submitted(executor), jobs, self.workers or ARRAY)


class _Submitted:
    """Jobs of submitit, one for each attempt."""

    def __init__(self, executor: Any) -> None:
        self.executor = executor

    def start(self, jobs: Sequence[Job]) -> Sequence[Any]:
        with environment(THREADS):
            submitted: Sequence[Any] = self.executor.map_array(_Resumed(), jobs)
        return submitted

    def over(self, tasks: Sequence[Any]) -> Sequence[Any]:
        time.sleep(POLL_SECONDS)
        return [task for task in tasks if task.done()]

    def outcome(self, task: Any) -> Failure | None:
        utils = required("submitit.core.utils")
        try:
            failure: Failure | None = task.result()
        except utils.FailedJobError:
            raise
        except utils.UncompletedJobError as error:
            told = f"its job {task.job_id} ended as {task.state}; see {task.paths.stderr}"
            raise LostError(told) from error
        return failure

    def end(self, tasks: Sequence[Any]) -> None:
        for task in tasks:
            task.cancel(check=False)


class _Resumed:
    """An attempt that submitit makes again where its time is over."""

    def __call__(self, job: Job) -> Failure | None:
        self._over = False
        return attempt(job, stopped=lambda: self._over)

    def checkpoint(self, job: Job) -> Any:
        """What is to be run next; submitit ends the process then."""
        self._over = True
        return required("submitit").helpers.DelayedSubmission(self, job)
