"""The callback of Hugging Face's Trainer, in runs of it."""

import sys

import pytest

from tests.integrations.frameworks import assert_examples_run, framework
from tests.integrations.runs import (
    STEPS,
    WATCHED,
    Classifier,
    assert_thresholds,
    bits,
    examples,
    optimizer_of,
    plain_run,
    told,
)  # fmt: skip


@pytest.fixture(scope="module")
def hf():
    framework("transformers.trainer")
    return framework("transformers")


@pytest.fixture
def monitor(hf):
    from lossgeom.integrations.transformers import monitor

    return monitor


def trainer_of(hf, model, folder, callbacks=(), data=None, **settings):
    asked = {
        "max_steps": STEPS, "per_device_train_batch_size": 8, "max_grad_norm": 0, "use_cpu": True,
        "train_sampling_strategy": "sequential", "dataloader_pin_memory": False, "logging_steps": 2,
        "report_to": "none", "save_strategy": "no", "disable_tqdm": True,
    }  # fmt: skip
    return hf.Trainer(
        model,
        hf.TrainingArguments(str(folder), **{**asked, **settings}),
        train_dataset=data or examples(),
        optimizers=optimizer_of(model),
        callbacks=list(callbacks),
    )


def test_the_examples_run(monitor):
    assert_examples_run(sys.modules[monitor.__module__])


@pytest.mark.parametrize("rounded", [False, True])
def test_the_record_is_that_of_the_plain_loop(tmp_path, hf, monitor, rounded):
    record, model = plain_run(tmp_path / "plain", rounded)
    trained = Classifier()
    trainer = trainer_of(hf, trained, tmp_path, bf16=rounded)
    geometry = monitor(trainer, record=tmp_path / "hf", **WATCHED)
    trainer.train()
    assert told(geometry.run.record) == told(record)
    assert bits(trained) == bits(model)
    assert_thresholds(record)
