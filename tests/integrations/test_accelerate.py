"""A loop with an Accelerator, watched."""

import sys
from types import SimpleNamespace

import pytest
import torch

from lossgeom.mirrors import Console
from tests.integrations.frameworks import assert_examples_run, assert_page_runs, framework
from tests.integrations.runs import (
    FEW,
    WATCHED,
    Broken,
    Classifier,
    Heap,
    assert_thresholds,
    batches,
    bits,
    of_memory,
    optimizer_of,
    plain_run,
    told,
)


@pytest.fixture(scope="module")
def accelerate():
    return framework("accelerate")


@pytest.fixture
def monitor(accelerate):
    from lossgeom.integrations.accelerate import monitor

    return monitor


@pytest.fixture
def accelerator(accelerate):
    """Makes accelerators that know nothing of those before."""

    def make(**settings):
        accelerate.state.AcceleratorState._reset_state(True)
        accelerate.state.GradientState._reset_state()
        return accelerate.Accelerator(cpu=True, **settings)

    yield make
    accelerate.state.AcceleratorState._reset_state(True)


def loop(accelerator, model, optimizer, schedule):
    for batch in batches():
        with accelerator.accumulate(model):
            optimizer.zero_grad()
            accelerator.backward(model(**batch)["loss"])
            optimizer.step()
            schedule.step()


def test_the_examples_run(monitor):
    assert_examples_run(sys.modules[monitor.__module__])


def test_the_page_runs(tmp_path, monkeypatch, capsys, monitor, accelerator):
    monkeypatch.chdir(tmp_path)
    assert_page_runs("Accelerate", capsys)


@pytest.mark.parametrize("rounded", [False, True])
def test_the_record_is_that_of_the_plain_loop(tmp_path, accelerator, monitor, rounded):
    record, model = plain_run(tmp_path / "plain", rounded)
    mine, trained = accelerator(mixed_precision="bf16" if rounded else "no"), Classifier()
    prepared = mine.prepare(trained, *optimizer_of(trained))
    with monitor(mine, *prepared[:2], record=tmp_path / "mine", **WATCHED) as run:
        loop(mine, *prepared)
    assert told(run.record) == told(record)
    assert bits(trained) == bits(model)
    assert_thresholds(run.record)


def test_accumulating_is_the_same_without_and_trackers_get_all(
    tmp_path, accelerate, accelerator, monitor
):
    seen = []

    class Tracker(accelerate.tracking.GeneralTracker):
        name, requires_logging_directory, tracker = "seen", False, None

        def __init__(self):
            pass

        def store_init_configuration(self, values):
            pass

        def log(self, values, step, **_):
            seen.append((step, values))

    left = []
    for watched in (False, True):
        mine, model = accelerator(gradient_accumulation_steps=2), Classifier(dropout=0.2)
        mine.trackers = [Tracker()]
        prepared = mine.prepare(model, *optimizer_of(model))
        torch.manual_seed(1)
        if watched:
            asked = {**FEW, "metrics": [*FEW["metrics"], Broken()], "every": 2}
            warned = pytest.warns(UserWarning, match="broken could not be measured at step 0")
            with warned, monitor(mine, *prepared[:2], record=tmp_path, **asked) as run:
                loop(mine, *prepared)
        else:
            loop(mine, *prepared)
        left.append((bits(model), torch.get_rng_state().numpy().tobytes()))
    assert left[0] == left[1]
    steps, losses = run.record.series("loss")
    assert steps == [0, 2]  # of three, of two batches each
    expected = [(step, {"lossgeom/loss": loss}) for step, loss in zip(steps, losses, strict=True)]
    assert [each for each in seen if "lossgeom/loss" in each[1]] == expected


def test_other_processes_have_an_empty_context(tmp_path, monitor):
    other, model = SimpleNamespace(is_main_process=False), Classifier()
    optimizer, _ = optimizer_of(model)
    with monitor(other, model, optimizer, record=tmp_path / "record", **FEW):
        optimizer.step()
    monitor(other, model, optimizer, record=tmp_path / "record", **FEW).close()
    assert not list(tmp_path.iterdir())


def test_mirrors_are_a_list(tmp_path, monitor, accelerator):
    model, mirror = Classifier(), Console()
    with pytest.raises(TypeError, match="expected a list of mirrors"):
        monitor(accelerator(), model, optimizer_of(model)[0], "cross_entropy", [], tmp_path,
                mirrors=mirror)  # fmt: skip


@pytest.mark.slow
def test_memory_does_not_grow_over_3000_watched_steps(tmp_path, accelerator, monitor):
    mine, model, heap = accelerator(), Classifier(), Heap()
    model, optimizer = mine.prepare(model, optimizer_of(model)[0])
    with monitor(mine, model, optimizer, record=tmp_path, **of_memory(heap)):
        for batch in batches(3000):
            optimizer.zero_grad()
            mine.backward(model(**batch)["loss"])
            optimizer.step()
    heap.check()
