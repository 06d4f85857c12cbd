"""What runs the runs of studies: what is tried again, what is not, and what is looked at first."""

import os
import signal
import socket
import sys
import types
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from lossgeom.cli import main
from lossgeom.lab.executors import (
    EXECUTORS,
    Executor,
    Processes,
    Ray,
    Slurm,
    _engine,
    _job,
    message,
    processes,
    ray,
)
from lossgeom.lab.executors._engine import THREADS, TRIES, LostError, completed
from lossgeom.lab.executors._job import Failure, attempt
from lossgeom.recording.crash_safety import LockedError
from lossgeom.recording.record import Record
from lossgeom.recording.record_format import RecordError


@dataclass(frozen=True)
class StandIn:
    """In place of a job: the folder of its record alone."""

    path: Path


@dataclass
class Fake:
    """An engine whose tasks end at once, as they are told to; by default well."""

    ends: dict[str, list] = field(default_factory=dict)
    begun: list = field(default_factory=list)
    ended: list = field(default_factory=list)
    most: int = 0

    def start(self, jobs):
        self.begun += [job.path.name for job in jobs]
        return [(len(self.begun) - len(jobs) + i, job.path) for i, job in enumerate(jobs)]

    def over(self, tasks):
        self.most = max(self.most, len(tasks))
        return tasks[:1]

    def outcome(self, task):
        path = task[1]
        outcome = (self.ends.get(path.name) or [None]).pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        if outcome is None:
            Record.create(path).finish()
        return outcome

    def end(self, tasks):
        self.ended += [path.name for _, path in tasks]


@pytest.fixture
def jobs(tmp_path):
    return [StandIn(tmp_path / name) for name in "abcd"]


def told(ended):
    """The message of each job that has ended, or None."""
    return {job.path.name: error and message(error) for job, error in filter(None, ended)}


def test_a_lost_worker_is_replaced_and_an_error_is_not_tried_again(jobs):
    failed = Failure(ValueError("no data"), "Traceback: where it was")
    engine = Fake({
        "a": [LostError("killed")], "b": [failed], "c": [LostError("killed")] * TRIES,
        "d": [ImportError("no torch there")],
    })  # fmt: skip
    ended = list(completed(engine, jobs, at_once=2))
    assert told(ended) == {
        "a": None, "b": "no data", "c": f"tried {TRIES} times: killed",
        "d": "ImportError: no torch there",
    }  # fmt: skip
    assert Counter(engine.begun) == {"a": 2, "b": 1, "c": TRIES, "d": 1}
    assert engine.begun[:3] == ["a", "b", "a"]  # it is not sent behind all others
    assert engine.most == 2
    assert None in ended
    assert engine.ended == []
    error = next(each[1] for each in ended if each and each[0].path.name == "b")
    assert "where it was" in str(error.__cause__)


def test_who_stops_waiting_ends_what_is_under_way(jobs):
    engine = Fake()
    with closing(completed(engine, jobs, at_once=3)) as ending:
        assert next(ending) == (jobs[0], None)
    assert engine.begun == ["a", "b", "c"]
    assert engine.ended == ["b", "c"]

    interrupted = Fake()
    interrupted.over = lambda tasks: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        list(completed(interrupted, jobs, at_once=4))
    assert interrupted.ended == ["a", "b", "c", "d"]


def test_a_record_that_is_seen_late_or_never(jobs, monkeypatch):
    """As over a network, or where the folder is another one there."""
    monkeypatch.setattr(_engine, "POLL_SECONDS", 0.001)
    seen = iter([RecordError("half of it"), OSError("stale"), False, True])

    def is_over(path):
        found = next(seen)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(_engine, "is_over", is_over)
    assert told(completed(Fake(), jobs[:1], at_once=1)) == {"a": None}
    monkeypatch.setattr(_engine, "SEEN_SECONDS", 0.0)
    assert (
        "does not show it here; expected a folder that all machines share"
        in (told(completed(Fake(), jobs[1:2], at_once=1))["b"])
    )


# Attempts


class TwoPartsError(Exception):
    """One that cannot be made of its message, as unpickling would."""

    def __init__(self, what, where):
        super().__init__(f"{what} at {where}")


def test_errors_that_cannot_move_between_processes():
    def job():
        raise TwoPartsError("no data", "home")

    failure = attempt(job)
    assert repr(failure.error) == "RuntimeError('TwoPartsError: no data at home')"
    assert "in job" in failure.traceback

    def plain():
        raise KeyError("x")

    assert isinstance(attempt(plain).error, KeyError)

    def leaving():
        sys.exit("no data")  # which would end who waits, too

    assert repr(attempt(leaving).error) == "RuntimeError('SystemExit: no data')"
    assert attempt(lambda: None) is None


def test_the_lock_of_a_lost_machine_is_waited_for(monkeypatch):
    tries = []

    def job():
        tries.append(1)
        if len(tries) < 3:
            raise LockedError("it is being written")

    assert attempt(job) is None
    assert len(tries) == 3
    tries.clear()
    monkeypatch.setattr(_job, "UNLOCKED_SECONDS", -1.0)
    assert isinstance(attempt(job).error, LockedError)


# Which there are


def test_executors_need_a_worker(monkeypatch):
    assert {"processes": Processes, "ray": Ray, "slurm": Slurm} == EXECUTORS
    assert isinstance(Processes(), Executor)
    for kind in EXECUTORS.values():
        with pytest.raises(ValueError, match="workers"):
            kind(workers=0)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--executor", "ray"], "ray is needed here and comes with the extra 'ray'"),
        (["--ray-address", "auto"], "expected --executor ray beside flags of ray"),
        (["--executor", "ray", "--slurm", "mem=4G"], "expected --executor slurm beside flags of"),
        (["--executor", "slurm"], "expected the command sbatch, as on the login node"),
        (
            ["--executor", "slurm", "--slurm", "time=1:00:00"],
            "expected time in whole minutes, such",
        ),
    ],
)
@pytest.mark.parametrize("study", ["planar_quadratic", "all"])
def test_what_cannot_be_is_told_before_anything_runs(
    tmp_path, capsys, monkeypatch, study, arguments, error
):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    status = main(["run", study, "--out", str(tmp_path / "out"), *arguments])
    assert status == (1 if "sbatch" in error else 2)
    assert error in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_submitit(monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ImportError, match=r"pip install 'lossgeom\[slurm\]'"):
        Slurm(cluster="local")


# What is asked of the machines of a Ray cluster


class FakeRayError(Exception):
    pass


@dataclass
class FakeRay:
    """Two machines; what one of them answers is given."""

    elsewhere: object = None  # what the second one does with the folder
    init_error: Exception | None = None
    began: bool = False
    stopped: bool = False

    def nodes(self):
        machine = {"Alive": True, "Resources": {"CPU": 4.0}}
        return [
            {**machine, "NodeID": "1", "NodeManagerHostname": "one"},
            {**machine, "NodeID": "2", "NodeManagerHostname": "two"},
            {**machine, "NodeID": "3", "Alive": False},
            {**machine, "NodeID": "4", "Resources": {}},
        ]

    def remote(self, **options):
        assert options["max_retries"] == 0
        assert options["runtime_env"]["env_vars"]["OMP_NUM_THREADS"] == "1"
        return lambda function: types.SimpleNamespace(
            options=lambda scheduling_strategy: types.SimpleNamespace(
                remote=lambda place, node: (function, place, node)
            )
        )

    def get(self, tasks):
        assert [node for *_, node in tasks] == ["1", "2"]
        there = self.elsewhere or tasks[1][0]
        return [tasks[0][0](*tasks[0][1:]), there(*tasks[1][1:])]

    def is_initialized(self):
        return self.began

    def init(self, address, **options):
        assert os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] == "0"
        assert options["log_to_driver"] is False
        if self.init_error is not None:
            raise self.init_error

    def shutdown(self):
        self.stopped = True

    class util:  # noqa: N801
        scheduling_strategies = types.SimpleNamespace(
            NodeAffinitySchedulingStrategy=lambda node, soft: node
        )

    exceptions = types.SimpleNamespace(RayError=FakeRayError)


def raising(error):
    def function(*arguments):
        raise error

    return function


@pytest.mark.parametrize(
    ("elsewhere", "error", "match"),
    [
        (None, None, ""),
        (
            lambda place, sign: ray._versions(), RecordError,
            "runs is not the same folder on two as here; expected one that all machines",
        ),
        (
            lambda place, sign: "lossgeom 0.0.1 and torch 2.0", RuntimeError,
            r"expected lossgeom .* and torch .* on all machines, as here; two has lossgeom 0\.0\.1",
        ),
        (
            raising(FakeRayError("ray::_look()\nModuleNotFoundError: No module named 'lossgeom'")),
            RuntimeError, "be installed on all its machines: ModuleNotFoundError: No module named",
        ),
    ],
)  # fmt: skip
def test_the_machines_of_a_cluster_are_looked_at_first(tmp_path, elsewhere, error, match):
    folder = tmp_path / "out/runs"
    if error is None:
        ray._check_machines(FakeRay(elsewhere), folder)
    else:
        with pytest.raises(error, match=match):
            ray._check_machines(FakeRay(elsewhere), folder)
    assert list(folder.iterdir()) == []


def test_a_cluster_that_was_joined_before_is_left(monkeypatch):
    joined, own = FakeRay(began=True), FakeRay()
    for cluster in (joined, own):
        monkeypatch.setitem(sys.modules, "ray", cluster)
        with ray._connected(None) as found:
            assert found is cluster
    assert (joined.stopped, own.stopped) == (False, True)


def test_no_cluster_at_the_address(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", FakeRay(init_error=ConnectionError("nobody answers")))
    message = "no Ray cluster at 'auto' that can be used: nobody answers; 'ray start --head'"
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(RuntimeError, match=message), ray._connected(None):
        pass
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = "127.0.0.1:{1}".format(*free.getsockname())
    monkeypatch.setenv("RAY_ADDRESS", address)
    message = f"no Ray cluster at '{address}' that can be used: .*refused"
    with pytest.raises(RuntimeError, match=message), ray._connected("auto"):
        pass


# Processes


@dataclass(frozen=True)
class Threads:
    """In place of a job: says how many threads its process may have, in an error."""

    path: Path = Path()

    def __call__(self):
        told = [os.environ[name] for name in THREADS], torch.get_num_threads()
        raise ValueError(str(told))


def test_a_worker_has_one_thread_and_there_are_no_more_than_cores(monkeypatch):
    first, second, *_ = THREADS
    monkeypatch.setattr("lossgeom.lab.executors.processes._cores", lambda: 1)
    monkeypatch.setenv(first, "7")
    monkeypatch.delenv(second, raising=False)
    started = []
    real = processes._Worker
    monkeypatch.setattr(processes, "_Worker", lambda: started.append(1) or real())
    ended = [each for each in Processes(8).completed([Threads(), Threads()]) if each is not None]
    assert [str(error) for _, error in ended] == [str((["1"] * len(THREADS), 1))] * 2
    assert len(started) == 1
    assert (os.environ[first], os.environ.get(second)) == ("7", None)


def test_workers_start_where_no_signal_can_be_held_back(monkeypatch):
    """As on Windows, where nothing counts what they share either."""
    monkeypatch.delattr(signal, "pthread_sigmask")
    monkeypatch.setattr(processes.resource_tracker, "ensure_running", None)
    with processes._no_interrupts():
        pass
