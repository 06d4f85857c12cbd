"""The callback of Lightning, in fits."""

import sys

import pytest

from tests.integrations.frameworks import assert_examples_run, framework
from tests.integrations.runs import (
    STEPS,
    WATCHED,
    Classifier,
    assert_thresholds,
    bits,
    loader,
    optimizer_of,
    plain_run,
    told,
)  # fmt: skip

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{warning}")
    for warning in (
        ".*does not have many workers:UserWarning",  # the data is a few numbers
        ".*LeafSpec.* is deprecated:FutureWarning",  # Lightning, of torch
    )
]


@pytest.fixture(scope="module")
def pl():
    return framework("lightning.pytorch")


@pytest.fixture
def geometry(pl):
    from lossgeom.integrations.lightning import LossGeometry

    return LossGeometry


@pytest.fixture(scope="module")
def lit(pl):
    class Lit(pl.LightningModule):
        def __init__(self, dropout=0.0):
            super().__init__()
            self.net = Classifier(dropout)

        def forward(self, x, labels=None):
            return self.net(x, labels)

        def training_step(self, batch, index):
            loss = self(**batch)["loss"]
            self.log("train_loss", loss)
            return loss

        def configure_optimizers(self):
            optimizer, schedule = optimizer_of(self)
            rhythm = {"scheduler": schedule, "interval": "step"}
            return {"optimizer": optimizer, "lr_scheduler": rhythm}

    return Lit


def trainer_of(pl, *callbacks, **settings):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    asked = {"max_steps": STEPS, "enable_model_summary": False, "accelerator": "cpu", **quiet}
    return pl.Trainer(callbacks=list(callbacks), **{**asked, **settings})


def test_the_examples_run(geometry):
    assert_examples_run(sys.modules[geometry.__module__])


@pytest.mark.parametrize("rounded", [False, True])
def test_the_record_is_that_of_the_plain_loop(tmp_path, pl, geometry, lit, rounded):
    record, model = plain_run(tmp_path / "plain", rounded)
    callback, module = geometry(record=tmp_path / "pl", **WATCHED), lit()
    trainer_of(pl, callback, precision="bf16-mixed" if rounded else "32-true").fit(module, loader())
    assert told(callback.run.record) == told(record)
    assert bits(module) == bits(model)
    assert_thresholds(record)
