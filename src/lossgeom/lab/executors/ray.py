"""A Ray cluster."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import Any

import torch

import lossgeom
from lossgeom.lab.executors._engine import POLL_SECONDS, THREADS, LostError, completed, environment
from lossgeom.lab.executors._job import Failure, Job, attempt
from lossgeom.messages.checks import check_at_least
from lossgeom.messages.extras import required
from lossgeom.recording.record_format import RecordError

# Without this, older versions hide GPUs from tasks that ask for none, and warn that they do.
VARIABLES = {**THREADS, "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
SECONDS = 10.0  # that a cluster has to answer


@dataclass(frozen=True)
class Ray:
    """Tasks on a Ray cluster, each with one core and one thread, as processes here would have.

    The cluster needs this version of lossgeom and of torch on all machines, and the folder of the
    study at the same place, such as on NFS; both are looked at before anything runs. A run whose
    worker or machine is lost is tried again, up to three times in all, wherever there is room, and
    goes on from its last checkpoint.

    A cluster that is there is left as it is. One that is started here ends with the study.

    Attributes:
        address: of the cluster, ``"HOST:PORT"``; ``"auto"`` for the one that this machine is part
            of; ``"local"`` for a new one here. By default what the variable ``RAY_ADDRESS`` says,
            or one that this machine is part of, or a new one.
        workers: how many tasks at once at most; by default as many as there are cores.

    Raises:
        ImportError: without Ray, which the extra ``ray`` brings.
        ValueError: for fewer than one worker.
    """

    address: str | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.workers is not None:
            check_at_least(1, workers=self.workers)
        required("ray")

    def completed(self, jobs: Sequence[Job]) -> Generator[tuple[Job, Exception | None] | None]:
        """Yield jobs as they end; see :class:`lossgeom.lab.executors.Executor`.

        Raises:
            RuntimeError: if there is no cluster, or one with other versions.
            RecordError: if the folder of the runs is not the same on all machines.
        """
        with _connected(self.address) as ray:
            _check_machines(ray, jobs[0].path.parent)
            yield from completed(_Tasks(ray), jobs, self.workers or len(jobs))


class _Tasks:
    """Tasks of Ray, one for each attempt; Ray itself tries nothing again."""

    def __init__(self, ray: Any) -> None:
        self.ray = ray

    def start(self, jobs: Sequence[Job]) -> Sequence[Any]:
        task = _remote(self.ray, _attempt_in, num_cpus=1)
        return [task.remote(job, os.getcwd()) for job in jobs]

    def over(self, tasks: Sequence[Any]) -> Sequence[Any]:
        over: Sequence[Any] = self.ray.wait(tasks, timeout=POLL_SECONDS)[0]
        return over

    def outcome(self, task: Any) -> Failure | None:
        try:
            failure: Failure | None = self.ray.get(task)
        except self.ray.exceptions.RayTaskError:
            raise
        except self.ray.exceptions.RayError as error:
            raise LostError(str(error).strip().splitlines()[0]) from error
        return failure

    def end(self, tasks: Sequence[Any]) -> None:
        for task in tasks:
            self.ray.cancel(task, force=True)


def _remote(ray: Any, function: Any, **options: Any) -> Any:
    return ray.remote(max_retries=0, runtime_env={"env_vars": VARIABLES}, **options)(function)


def _attempt_in(job: Job, folder: str) -> Failure | None:
    """Attempt a job where its relative paths, as to data, lead to the same files."""
    if os.path.isdir(folder):
        os.chdir(folder)
    return attempt(job)


@contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    """Join a cluster, or start one; leave it, or end it."""
    ray = required("ray")
    if ray.is_initialized():  # by whoever calls
        yield ray
        return
    there = address or "auto"
    if there == "auto":  # as Ray takes it
        there = os.environ.get("RAY_ADDRESS", there)
    host, _, port = there.rpartition(":")
    try:
        if port.isdecimal() and "://" not in there:  # Ray itself would wait for ten minutes
            socket.create_connection((host.strip("[]"), int(port)), timeout=SECONDS).close()
        with environment(VARIABLES):
            ray.init(address, log_to_driver=False, logging_level="ERROR", include_dashboard=False)
    except Exception as error:  # Ray raises this very class where it does not start in time
        raise RuntimeError(
            f"no Ray cluster at {there!r} that can be used: {error}; 'ray start --head' starts "
            "one, and --executor processes needs none"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _check_machines(ray: Any, folder: Path) -> None:
    """Raise unless all machines that take tasks share a folder, and have these versions."""
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f".{uuid.uuid4().hex}"
    place.mkdir()
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    there = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    look = _remote(ray, _look, num_cpus=0)
    try:
        versions = ray.get([
            look.options(scheduling_strategy=there(node["NodeID"], soft=False))
            .remote(place, node["NodeID"])
            for node in nodes
        ])  # fmt: skip
        shared = {path.name for path in place.iterdir()}
    except ray.exceptions.RayError as error:
        raise RuntimeError(
            "the Ray cluster cannot run lossgeom, which has to be installed on all its machines: "
            f"{str(error).strip().splitlines()[-1]}"
        ) from error
    finally:
        rmtree(place)
    for node, version in zip(nodes, versions, strict=True):
        name = node["NodeManagerHostname"]
        if version != _versions():
            raise RuntimeError(
                f"expected {_versions()} on all machines, as here; {name} has {version}"
            )
        if node["NodeID"] not in shared:
            raise RecordError(
                f"{folder} is not the same folder on {name} as here; expected one that all "
                "machines of the cluster share, such as on NFS: choose it with --out"
            )


def _look(place: Path, sign: str) -> str:
    """Leave a sign in a folder, if it is there; return which versions are."""
    if place.is_dir():
        (place / sign).touch()
    return _versions()


def _versions() -> str:
    return f"lossgeom {lossgeom.__version__} and torch {torch.__version__}"
