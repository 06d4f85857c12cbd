"""Runs of a study that fail, and those beside them."""

import json
from dataclasses import dataclass, replace
from itertools import accumulate

import pytest

from lossgeom.cli.terminal import study_display
from lossgeom.lab.runner import FailedRunsError, Progress, run_study
from lossgeom.lab.studies import STUDIES
from lossgeom.lab.studies._network import NetworkSettings
from lossgeom.recording.record import Record
from lossgeom.recording.record_format import RecordError
from lossgeom.report import render
from tests.lab.test_lab import write_mnist

pytestmark = pytest.mark.usefixtures("pages_alone")
STUDY = STUDIES["progressive_sharpening"]


@dataclass(frozen=True)
class Here:
    """Run everything in this process, except for some runs, which fail."""

    failing: tuple[str, ...] = ()

    def completed(self, jobs):
        for job in jobs:
            try:
                if job.run.name in self.failing:
                    Record.create(job.path, job.run.settings, resume=True).close()  # as if killed
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


# What is told, and refused, before and while runs go on


@pytest.mark.quick
def test_the_share_that_is_done_goes_by_steps(tmp_path, config):
    """A run that is stopped half way counts for half of its steps."""
    runs = STUDY.plan(config, 1)
    steps = [STUDY.steps(run) for run in runs]
    assert len(set(steps)) > 1
    told, failing = [], Here(tuple(run.name for run in runs))
    with pytest.raises(FailedRunsError):
        run_study(STUDY, config, tmp_path / "out", seeds=1, executor=failing)
    with Record.create(tmp_path / "out/runs" / runs[0].name, runs[0].settings, resume=True) as run:
        run.append({"step": steps[0] // 2, "metric": "loss", "value": 1.0})
        run.close()
    with pytest.raises(FailedRunsError):
        run_study(STUDY, config, tmp_path / "out", seeds=1, executor=failing,
                  on_progress=told.append)  # fmt: skip
    shares = [steps[0] // 2, *accumulate(steps)]
    seen = [progress.done for progress in told if progress.latest or progress is told[0]]
    assert seen == pytest.approx([share / sum(steps) for share in shares])


def test_the_time_that_is_left(capsys, monkeypatch):
    """From when the first run begins to get on, whatever was done by another process before."""
    clock = iter([0.0, 60.0, 62.0, 65.0, 66.0, 67.0])
    monkeypatch.setattr("lossgeom.cli.terminal.time.monotonic", lambda: next(clock))
    with study_display() as show:
        show(Progress(4, 1, 0.2))
        show(Progress(4, 1, 0.2))
        show(Progress(4, 2, 0.4, ("a",)))
        show(Progress(4, 3, 0.5, ("b",)))
        show(Progress(4, 3, 1.0, ("d",), at_end=1))
        show(Progress(4, 4, 1.0, ("c",)))
    assert capsys.readouterr().err.splitlines() == [
        "lossgeom: 1 of 4 runs are finished already",
        "lossgeom: 2 of 4 runs are finished: a",
        "lossgeom: 3 of 4 runs are finished, about 0:00:15 left: b",
        "lossgeom: 3 of 4 runs are finished, 1 measured at the end: d",
        "lossgeom: 4 of 4 runs are finished, about 0:00:00 left: c",
    ]


class NeverError(Exception):
    pass


class Never:
    """Runs nothing."""

    def completed(self, jobs):
        raise NeverError
        yield None


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"data": "cifar10", "folder": "nowhere"}, "expected data_batch_1.bin"),
        ({"examples": 1790, "classes": (0, 1)}, r"expected 1 to \d+ digits"),
    ],
)
def test_data_that_are_not_there_are_told_before_any_run(tmp_path, config, network, message):
    without = replace(config, network=replace(config.network, **network))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run_study(STUDY, without, tmp_path / "out", seeds=1, executor=Never())
    assert not (tmp_path / "out").exists()


def test_data_of_two_classes_are_asked_for_where_there_are_no_others(tmp_path):
    study = STUDIES["input_smoothness"]
    write_mnist(tmp_path / "data", images=50)
    network = NetworkSettings(
        data="fashion_mnist", folder=str(tmp_path / "data"), examples=40, verify=False
    )
    config = study.Config(network=network, batch_size=(4, 10, 20))
    with pytest.raises(ValueError, match="expected 1 to 10 images"):
        run_study(study, config, tmp_path / "out", seeds=1, executor=Never())


def test_targets_of_any_scale_are_no_reason_to_refuse(tmp_path):
    study = STUDIES["edge_of_stability"]
    network = NetworkSettings(examples=60, target_scale=2.0)
    with pytest.raises(NeverError):
        run_study(study, study.Config(network=network), tmp_path / "out", seeds=1, executor=Never())


def test_claims_that_cannot_be_judged(tmp_path, config):
    def claims(config, seeds):
        raise ZeroDivisionError("no seeds")

    study, failing = replace(STUDY, claims=claims), tuple(r.name for r in STUDY.plan(config, 1))
    with pytest.raises(ZeroDivisionError):
        run_study(study, config, tmp_path / "out", seeds=1, executor=Here(failing))
    record = Record.open(tmp_path / "out")
    told = "The claims could not be judged: ZeroDivisionError: no seeds"
    assert (record.status, record.for_report.summary) == ("failed", told)
    assert not (tmp_path / "out/claims.json").exists()
    assert told in render([tmp_path / "out"]).read_text()


# Folders


@pytest.mark.quick
def test_runs_never_share_a_folder(config):
    grid = {"model": ("a", "a-b", "A"), "data": ("b-c", "c", "b", "B")}
    study = replace(STUDY, grid=lambda config: grid, folder="{model}-{data}-seed{seed}")
    runs = study.plan(config, 2)
    names = [run.name.casefold() for run in runs]
    assert len(set(names)) == len(names) == 24
    assert [name for name in names if name.endswith("seed10")] == ["a-b-b-c-seed10"]
    assert [run.name for run in study.plan(config, 1)] == [run.name for run in runs[:12]]
    other = study.plan(replace(config, steps=13), 1)
    hashed = {run.name for run in runs if run.name == run.hashed}
    assert not hashed & {run.name for run in other}
    long = replace(study, grid=lambda config: {"model": ("x" * 300,), "data": ("y",)})
    assert all(len(run.name) < 100 for run in long.plan(config, 2))
    twice = replace(study, grid=lambda config: {"model": (1, 1.0), "data": ("y",)})
    with pytest.raises(ValueError, match=r"expected different values of model, got \[1, 1\.0\]"):
        twice.plan(config, 1)


def test_a_folder_of_another_run_is_left_as_it_is(tmp_path, config):
    first, second = STUDY.plan(config, 1)[0], STUDY.plan(replace(config, steps=13), 1)[0]
    assert first.name == second.name
    Record.create(tmp_path / first.name, first.settings).finish()
    before = (tmp_path / first.name / "manifest.json").read_bytes()
    with pytest.raises(RecordError, match="holds another run"):
        Record.create(tmp_path / second.name, second.settings, resume=True)
    assert (tmp_path / first.name / "manifest.json").read_bytes() == before
