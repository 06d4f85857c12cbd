"""Runs of a study that fail, and those beside them."""

import json
from dataclasses import dataclass

import pytest

from lossgeom.lab.executors import EXECUTORS, Processes
from lossgeom.lab.executors.processes import _attempt
from lossgeom.lab.runner import FailedRunsError, run_study
from lossgeom.lab.studies import STUDIES
from lossgeom.lab.studies._network import NetworkSettings
from lossgeom.recording.record import Record
from lossgeom.report import render

STUDY = STUDIES["progressive_sharpening"]


@dataclass(frozen=True)
class Here:
    """Run everything in this process, except for some runs, which fail."""

    failing: tuple[str, ...] = ()

    def completed(self, jobs):
        for job in jobs:
            try:
                if job.run.name in self.failing:
                    record = Record.create(job.path, job.run.settings, resume=True)
                    record.update(left_out="it failed: no data")
                    record.finish("failed")
                    raise ValueError("no data")
                job()
            except ValueError as error:
                yield job, error
            else:
                yield job, None
            yield None


@pytest.fixture(scope="module")
def config():
    return STUDY.Config(
        network=NetworkSettings(examples=60, widths=(8,)),
        steps=12,
        every=4,
        label_smoothing=(0, 0.3, 0.6),
    )


def test_those_beside_a_failing_run_go_on(tmp_path, config):
    names = [run.name for run in STUDY.plan(config, 1)]
    ended = []
    with pytest.raises(FailedRunsError, match=f"1 of {len(names)} runs failed.*{names[0]} failed"):
        run_study(
            STUDY, config, tmp_path / "out", seeds=1, executor=Here(tuple(names[:1])),
            on_progress=lambda progress: ended.extend(progress.latest),
        )  # fmt: skip
    assert ended == names
    statuses = {name: Record.open(tmp_path / "out/runs" / name).status for name in names}
    assert statuses.pop(names[0]) == "failed"
    assert set(statuses.values()) <= {"finished", "diverged"}
    page = render([tmp_path / "out"]).read_text()
    assert "it failed: no data" in page

    claims = run_study(STUDY, config, tmp_path / "out", seeds=1, executor=Here())
    assert claims
    record = Record.open(tmp_path / "out/runs" / names[0])
    assert record.status in ("finished", "diverged")
    assert record.for_report.left_out is None
    assert "it failed" not in render([tmp_path / "out"]).read_text()


def test_of_many_that_fail_the_first_are_named_with_the_error_once(tmp_path, config):
    names = [run.name for run in STUDY.plan(config, 1)]
    told = f"kept: {', '.join(names[:3])} and {len(names) - 3} others failed: no data$"
    with pytest.raises(FailedRunsError, match=told) as caught:
        run_study(STUDY, config, tmp_path / "out", seeds=1, executor=Here(tuple(names)))
    assert str(caught.value.__cause__) == "no data"
    claims = json.loads((tmp_path / "out/claims.json").read_text())
    assert {claim["verdict"] for claim in claims} == {"inconclusive"}


def test_an_executor_needs_a_worker():
    assert EXECUTORS["processes"] is Processes
    with pytest.raises(ValueError, match="workers"):
        Processes(0)


class TwoPartsError(Exception):
    """One that cannot be made of its message, as unpickling would."""

    def __init__(self, what, where):
        super().__init__(f"{what} at {where}")


def test_errors_that_cannot_move_between_processes():
    def job():
        raise TwoPartsError("no data", "home")

    with pytest.raises(RuntimeError, match=r"^TwoPartsError: no data at home$"):
        _attempt(job)

    def plain():
        raise KeyError("x")

    with pytest.raises(KeyError):
        _attempt(plain)
