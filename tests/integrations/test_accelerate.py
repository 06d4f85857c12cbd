"""A loop with an Accelerator, watched."""

import sys

import pytest

from tests.integrations.frameworks import assert_examples_run, framework
from tests.integrations.runs import (
    WATCHED,
    Classifier,
    assert_thresholds,
    batches,
    bits,
    optimizer_of,
    plain_run,
    told,
)  # fmt: skip


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
