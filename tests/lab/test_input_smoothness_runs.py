"""The study input_smoothness: real runs that end in every way."""

from dataclasses import replace

import pytest
import torch

from lossgeom import Problem, Record, multiplicative_inequality, sobolev_seminorms
from lossgeom.lab.studies import _network
from lossgeom.lab.studies import input_smoothness as study
from lossgeom.lab.studies._network import NetworkSettings
from lossgeom.lab.studies._study import SeedRun
from lossgeom.lab.studies.input_smoothness.config import PAPER, Config
from lossgeom.lab.studies.input_smoothness.measures import AT_END, G_W, G_X, RATIOS
from lossgeom.lab.training import sgd
from tests.conftest import without_checks
from tests.lab import StopError
from tests.lab.files import write_cifar10

TINY = Config(
    lr=(0.1, 0.2, 0.3), batch_size=(5, 8, 20), interpolation=0.001, steps=800, every=10,
    network=NetworkSettings(examples=20, widths=(8,)),
)  # fmt: skip
SMALL = SeedRun("run", 0, TINY, {"lr": 0.2, "batch_size": 8})


def values(record):
    return [(r["step"], r["metric"], r["value"], r["matvecs"]) for r in record.rows()]


def a_run(folder, config=SMALL):
    record = Record.create(folder, config.settings)
    study.run.run(config, record)
    return record


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run that is not stopped."""
    with without_checks():
        return a_run(tmp_path_factory.mktemp("straight") / "run")


def test_a_run_ends_where_it_interpolates(straight):
    steps, losses = straight.series("loss")
    assert straight.status == "finished"
    assert steps == list(range(0, steps[-1] + 1, 10)) == straight.manifest["planned_steps"]
    assert 10 < steps[-1] < TINY.steps
    assert losses[-1] < TINY.interpolation <= min(losses[:-1])
    assert straight.series("test_loss")[0] == steps
    assert study.run.left_out(straight) == ""
    assert "left_out" not in straight.manifest
    for metric in AT_END:
        assert straight.series(metric.name)[0] == steps[-1:]


def test_what_is_measured_at_its_end(straight):
    """The same by the library's functions, of the model that the same steps give."""
    last = straight.series("loss")[0][-1]
    model, data = _network.build_with_signs(TINY.network, 0)
    for _ in sgd(model, "squared_error", data.train, lr=0.2, batch_size=8, steps=last, seed=0):
        pass  # fmt: skip
    assert set(data.train[1].flatten().tolist()) == {-1.0, 1.0}
    problem = Problem(model, "squared_error", [data.train])
    sides = multiplicative_inequality(problem, (1, 2))
    for k in (1, 2):
        for of, metrics in (("parameters", G_W), ("input", G_X)):
            expected = sobolev_seminorms(problem, of, (k,)).elementwise[k]
            assert straight.series(metrics[k].name)[1] == pytest.approx([expected], rel=1e-5)
        left, right = sides[k].left.flatten(), sides[k].right.flatten()
        expected = {
            "largest": max(left / right),
            "averaged": sides[k].input_seminorm / sides[k].averaged_right,
            "mispaired": max(left.roll(1) / right),
        }
        for form, metrics in RATIOS.items():
            found = straight.series(metrics[k - 1].name)[1]
            assert found == pytest.approx([float(expected[form])], rel=1e-4)
    held_out = Problem(model, "squared_error", [data.test])
    assert straight.series("test_loss")[1][-1] == pytest.approx(held_out.loss(), rel=1e-5)


@pytest.mark.parametrize("where", ["in the middle", "at the end"])
def test_stopped_and_going_on_is_going_straight_through(
    tmp_path, monkeypatch, straight, unchecked, where
):
    last = straight.series("loss")[0][-1]
    stop = 117 if where == "in the middle" else last
    assert 100 < stop <= last
    real, started_at = study.run.sgd, []

    def stopping(*arguments, first, **options):
        started_at.append(first)
        for step in real(*arguments, first=first, **options):
            yield step
            if step == stop and len(started_at) == 1:
                raise StopError

    monkeypatch.setattr(study.run, "sgd", stopping)
    if where == "at the end":  # between the last row and the word that it is the last
        monkeypatch.setattr(Record, "finish", lambda *_: (_ for _ in ()).throw(StopError))
    path = tmp_path / "halved"
    with pytest.raises(StopError), Record.create(path, SMALL.settings) as record:
        study.run.run(SMALL, record)
    assert record.status == "running"
    monkeypatch.undo()
    monkeypatch.setattr(study.run, "sgd", stopping)
    with Record.create(path, SMALL.settings, resume=True) as record:
        study.run.run(SMALL, record)
    assert record.status == "finished"
    assert started_at == [0, stop // 100 * 100]
    assert values(record) == values(straight)
    assert record.manifest["planned_steps"] == straight.manifest["planned_steps"]


def test_a_run_that_does_not_interpolate_says_so(tmp_path):
    short = replace(SMALL, study=replace(TINY, steps=20, interpolation=1e-9))
    record = a_run(tmp_path / "run", short)
    assert record.status == "finished"
    assert record.manifest["left_out"].endswith("after 20 steps, not below 1e-09")
    assert record.series(G_W[1].name)[0] == [20]


def test_a_run_that_diverges_says_so(tmp_path):
    record = a_run(tmp_path / "run", replace(SMALL, place={"lr": 1e30, "batch_size": 8}))
    assert record.status == "diverged"
    at = record.manifest["diverged_at"]
    assert record.manifest["left_out"] == f"diverged at step {at}"
    assert at < TINY.steps
    assert record.series(G_W[1].name) == ([], [])
    assert study.STUDY.judge(TINY, [record])[0].verdict == "inconclusive"


def test_a_network_that_is_dead_is_a_result(tmp_path, monkeypatch):
    """Then both sides of the inequality are zero."""
    real = study.run.build_with_signs

    def dead(*arguments):
        model, data = real(*arguments)
        torch.nn.init.constant_(model[1].bias, -100.0)
        return model, data

    monkeypatch.setattr(study.run, "build_with_signs", dead)
    tiny = replace(SMALL, study=replace(TINY, steps=10))
    record = a_run(tmp_path / "run", tiny)
    assert record.series(RATIOS["averaged"][0].name)[1] == [0.0]
    assert record.series(RATIOS["largest"][0].name)[1] == [0.0]


def test_the_papers_model_and_data(tmp_path):
    """The paper's preset on a few images in the format of the real files, of two classes."""
    write_cifar10(tmp_path / "data", images=6)
    assert (PAPER.network.data, PAPER.network.widths) == ("cifar10", (500, 500, 500))
    folder = str(tmp_path / "data")
    network = replace(PAPER.network, folder=folder, examples=6, widths=(8, 8))
    config = replace(PAPER, network=network, batch_size=(2, 4, 6), steps=2, every=1)
    record = a_run(tmp_path / "run", study.STUDY.plan(config, 1)[0])
    assert record.status == "finished"
    assert record.series("test_loss")[0] == [0, 1, 2]
    _, data = _network.build_with_signs(network, 0)
    assert [len(part[0]) for part in (data.train, data.test)] == [6, 2]
    assert data.test[1].flatten().tolist() == [1.0, -1.0]
