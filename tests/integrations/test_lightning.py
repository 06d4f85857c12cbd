"""The callback of Lightning, in fits."""

import copy
import csv
import pickle
import sys

import pytest
import torch

import lossgeom as lg
from tests.integrations.frameworks import assert_examples_run, assert_page_runs, framework
from tests.integrations.runs import (
    FEW,
    STEPS,
    WATCHED,
    Broken,
    Classifier,
    Heap,
    assert_thresholds,
    bits,
    loader,
    of_memory,
    optimizer_of,
    plain_run,
    told,
)

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{warning}")
    for warning in (
        ".*does not have many workers:UserWarning",  # the data is a few numbers
        ".*LeafSpec.* is deprecated:FutureWarning",  # Lightning, of torch
        ".*have no .val_dataloader.:UserWarning",  # most of these fits validate nothing
    )
]
STEP_OF_FIT = "a step of the fit"


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
        def __init__(self, dropout=0.0, error_at=None):
            super().__init__()
            self.net = Classifier(dropout)
            self.error_at = error_at

        def forward(self, x, labels=None):
            return self.net(x, labels)

        def training_step(self, batch, index):
            if self.global_step == self.error_at:
                raise ArithmeticError(STEP_OF_FIT)
            return self(**batch)["loss"]

        def validation_step(self, batch, index):
            self.log("val_loss", self(**batch)["loss"])

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


def test_the_page_runs(tmp_path, monkeypatch, capsys, geometry):
    monkeypatch.chdir(tmp_path)
    assert_page_runs("Lightning", capsys)


@pytest.mark.parametrize("rounded", [False, True])
def test_the_record_is_that_of_the_plain_loop(tmp_path, pl, geometry, lit, rounded):
    record, model = plain_run(tmp_path / "plain", rounded)
    callback, module = geometry(record=tmp_path / "pl", **WATCHED), lit()
    trainer_of(pl, callback, precision="bf16-mixed" if rounded else "32-true").fit(module, loader())
    assert told(callback.run.record) == told(record)
    assert bits(module) == bits(model)
    assert_thresholds(record)


def test_a_fit_with_all_that_it_may_have_is_the_same_without(tmp_path, pl, geometry, lit):
    """Validation, accumulation, clipping, random numbers, and a metric that fails."""
    left, asked = [], {"accumulate_grad_batches": 2, "gradient_clip_val": 0.1, "max_steps": 4}
    watched = geometry(record=tmp_path, **{**FEW, "metrics": [*FEW["metrics"], Broken()]})
    for callbacks in ([], [watched]):
        module = lit(dropout=0.2)
        torch.manual_seed(1)
        trainer = trainer_of(pl, *callbacks, **asked)
        if callbacks:
            with pytest.warns(UserWarning, match="broken could not be measured at step 0"):
                trainer.fit(module, loader(), loader())
        else:
            trainer.fit(module, loader(), loader())
        left.append((bits(module), torch.get_rng_state().numpy().tobytes()))
    assert left[0] == left[1]
    record = lg.Record.open(tmp_path)
    assert record.series("loss")[0] == record.series("broken")[0] == [0, 1, 2, 3]
    assert {row["status"] for row in record.rows() if row["metric"] == "broken"} == {"failed"}
    assert record.status == "finished"


def test_numbers_reach_loggers_and_callbacks_at_their_steps(tmp_path, pl, geometry, lit):
    logger = pl.loggers.CSVLogger(tmp_path / "csv")
    callback = geometry(record=tmp_path / "record", **{**FEW, "every": 2})
    trainer = trainer_of(pl, callback, logger=logger, log_every_n_steps=3)
    trainer.fit(lit(), loader())
    with open(logger.experiment.metrics_file_path, newline="") as file:
        logged = list(csv.DictReader(file))
    steps, losses = callback.run.record.series("loss")
    assert [int(row["step"]) for row in logged] == steps == [0, 2, 4]
    assert [float(row["lossgeom/loss"]) for row in logged] == losses
    assert float(trainer.callback_metrics["lossgeom/loss"]) == pytest.approx(losses[-1])


@pytest.fixture(scope="module")
def gan(pl):
    class Two(pl.LightningModule):
        """Steps its first optimiser twice, and its second one once a batch."""

        def __init__(self):
            super().__init__()
            self.automatic_optimization = False
            self.net = Classifier()

        def forward(self, x, labels=None):
            return self.net(x, labels)

        def training_step(self, batch, index):
            first, second = self.optimizers()
            for optimizer in (first, first, second):
                optimizer.zero_grad()
                self.manual_backward(self(**batch)["loss"])
                optimizer.step()

        def configure_optimizers(self):
            layers = self.net.layers
            first = torch.optim.SGD([*layers[0].parameters(), *layers[1].parameters()], lr=0.1)
            return first, torch.optim.SGD(layers[4].parameters(), lr=0.1)

    return Two


def test_a_step_is_one_of_the_last_of_several_optimisers(tmp_path, pl, geometry, gan):
    callback = geometry(record=tmp_path / "record", **FEW)
    trainer = trainer_of(pl, callback, max_steps=18)
    trainer.fit(gan(), loader())
    assert trainer.global_step == 18
    steps, losses = callback.run.record.series("loss")
    assert steps == list(range(STEPS))
    # A checkpoint has the number of the next one.
    stopped = trainer_of(pl, geometry(record=tmp_path / "stopped", **FEW), max_steps=6)
    stopped.fit(gan(), loader())
    stopped.save_checkpoint(tmp_path / "2.ckpt")
    again = geometry(record=tmp_path / "stopped", **FEW)
    trainer_of(pl, again, max_steps=18).fit(
        gan(), loader(), ckpt_path=tmp_path / "2.ckpt", weights_only=False
    )
    assert again.run.record.series("loss")[0] == steps
    assert again.run.record.series("loss")[1][:2] == losses[:2]  # then other batches come


def test_each_of_several_steps_of_a_batch_reaches_loggers(tmp_path, pl, geometry, gan):
    class Reversed(gan):
        """Steps its last optimiser twice a batch."""

        def configure_optimizers(self):
            return super().configure_optimizers()[::-1]

        def optimizers(self):
            return super().optimizers()[::-1]

    logger = pl.loggers.CSVLogger(tmp_path / "csv")
    callback = geometry(record=tmp_path / "record", **FEW)
    trainer = trainer_of(pl, callback, logger=logger, log_every_n_steps=1, max_steps=9)
    with pytest.warns(UserWarning, match="ended without a step of each"):
        trainer.fit(Reversed(), loader())
    with open(logger.experiment.metrics_file_path, newline="") as file:
        logged = [(int(row["step"]), float(row["lossgeom/loss"])) for row in csv.DictReader(file)]
    assert logged == list(zip(*callback.run.record.series("loss"), strict=True))
    assert len(logged) == STEPS


def test_a_checkpoint_of_an_earlier_callback_has_the_step(tmp_path, pl, geometry, lit):
    class Saver(pl.Callback):
        def on_train_batch_end(self, trainer, *_):
            trainer.save_checkpoint(tmp_path / f"{trainer.global_step}.ckpt")

    trainer_of(pl, Saver(), geometry(record=tmp_path / "record", **FEW)).fit(lit(), loader())
    callback = geometry(record=tmp_path / "record", **FEW)
    trainer_of(pl, callback).fit(lit(), loader(), ckpt_path=tmp_path / "3.ckpt", weights_only=False)
    told = [row for row in callback.run.record.rows() if "supersedes_lines" in row]
    assert [row["step"] for row in told] == [3]
    assert callback.run.record.series("loss")[0] == list(range(STEPS))


def test_a_compiled_module_is_measured_as_it_is_without(tmp_path, pl, geometry, lit):
    losses = []
    for compiled in (False, True):
        callback, module = geometry(record=tmp_path / str(compiled), **FEW), lit()
        given = torch.compile(module, backend="eager") if compiled else module
        trainer_of(pl, callback, max_steps=2).fit(given, loader())
        losses.append(callback.run.record.series("loss"))
        assert (module._compiler_ctx is not None) is compiled
    assert losses[0] == losses[1]


def test_fits_of_a_trainer_go_on_in_the_record(tmp_path, pl, geometry, lit):
    callback, module = geometry(record=tmp_path, **FEW), lit()
    trainer = trainer_of(pl, callback, max_steps=2)
    trainer.fit(module, loader())
    trainer.fit_loop.epoch_loop.max_steps = 4
    trainer.fit(module, loader())
    assert callback.run.record.series("loss")[0] == [0, 1, 2, 3]
    with pytest.raises(lg.RecordError, match="holds a run that is over"):
        trainer_of(pl, callback).fit(module, loader())


def test_a_checkpoint_without_this_tells_the_step(tmp_path, pl, geometry, lit):
    trainer = trainer_of(pl, max_steps=3)
    trainer.fit(lit(), loader())
    trainer.save_checkpoint(tmp_path / "3.ckpt")
    callback = geometry(record=tmp_path / "record", **FEW)
    trainer_of(pl, callback).fit(lit(), loader(), ckpt_path=tmp_path / "3.ckpt", weights_only=False)
    assert callback.run.record.series("loss")[0] == [3, 4, 5]


def test_an_error_ends_the_record_as_failed(tmp_path, pl, geometry, lit):
    callback = geometry(record=tmp_path, **FEW)
    with pytest.raises(ArithmeticError, match=STEP_OF_FIT):
        trainer_of(pl, callback).fit(lit(error_at=2), loader())
    assert callback.run.record.status == "failed"
    assert callback.run.record.series("loss")[0] == [0, 1]


def test_what_cannot_be_measured_is_said_before_anything_is_trained(tmp_path, pl, geometry, lit):
    module = lit()
    before = bits(module)
    with pytest.raises(TypeError, match="unknown argument 'evry'"):
        trainer_of(pl, geometry(record=tmp_path, evry=3, **FEW)).fit(module, loader())
    one = geometry(record=tmp_path, mirrors=lg.mirrors.Console(), **FEW)
    with pytest.raises(TypeError, match="expected a list of mirrors"):
        trainer_of(pl, one).fit(module, loader())
    assert bits(module) == before


def test_copies_have_no_run(tmp_path, pl, geometry, lit):
    seen = []

    class Copier(pl.Callback):
        def on_train_batch_end(self, trainer, *_):
            mine = trainer.callbacks[0]
            seen.append(copy.deepcopy(mine))
            seen.append(pickle.loads(pickle.dumps(mine._runs)))  # Lightning adds the module

    callback = geometry(record=tmp_path, **{**FEW, "metrics": [lg.metrics.Loss()]})
    assert pickle.loads(pickle.dumps(callback)).run is None
    trainer_of(pl, callback, Copier(), max_steps=2).fit(lit(), loader())
    assert all(each.run is None for each in seen)
    assert len(seen) == 4
    assert callback.run.record.series("loss")[0] == [0, 1]


@pytest.mark.filterwarnings("ignore:.*self.trainer. reference is not registered")  # of the copy
def test_the_training_step_can_be_the_loss(tmp_path, pl, geometry, lit):
    n = len(WATCHED["batches"][0]["labels"])
    own = {
        "forward": lambda module, batch: module.training_step(batch, 0).reshape(1),
        "loss": lambda outputs, batch: (outputs[0] * n, n),
    }
    losses = []
    for i, settings in enumerate([{}, own]):
        callback = geometry(record=tmp_path / str(i), **{**FEW, **settings})
        trainer_of(pl, callback, max_steps=2).fit(lit(), loader())
        losses.append(callback.run.record.series("loss"))
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_memory_does_not_grow_over_3000_watched_steps(tmp_path, pl, geometry, lit):
    heap = Heap()
    callback = geometry(record=tmp_path, **of_memory(heap))
    trainer_of(pl, callback, max_steps=3000).fit(lit(), loader())
    heap.check()
