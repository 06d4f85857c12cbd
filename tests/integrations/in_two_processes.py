"""One of two processes that train data-parallel, as torchrun starts them.

FRAMEWORK FOLDER, for the first to measure alone, or FRAMEWORK FOLDER shared, for both together.
"""

import json
import os
import sys
import warnings
from pathlib import Path

import torch
import torch.distributed

import lossgeom as lg
from tests.integrations.frameworks import framework
from tests.integrations.runs import FEW, PROBE, Classifier, bits, examples, loader, optimizer_of

MOST = 2  # steps of each process
SHARED = sys.argv[3:] == ["shared"]
RANK = int(os.environ.get("RANK", "0"))


def settings(ranks):
    """Those of the watch, with a share of the probe where both measure."""
    if not SHARED:
        return FEW
    return {**FEW, "batches": [{key: v.chunk(2)[RANK] for key, v in PROBE[0].items()}], **ranks}


def tell(known):
    """Write down what this process knows of what was measured."""
    if SHARED:
        told = {key: float(value) for key, value in known.items() if key.startswith("lossgeom/")}
        Path(sys.argv[2], f"known-{RANK}.json").write_text(json.dumps(told))


def lightning(folder):
    pl = framework("lightning.pytorch")
    from lossgeom.integrations.lightning import LossGeometry

    class Lit(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = Classifier()

        def forward(self, x, labels=None):
            return self.net(x, labels)

        def training_step(self, batch, index):
            return self(**batch)["loss"]

        def configure_optimizers(self):
            return optimizer_of(self)[0]

    module, callbacks = Lit(), []
    if folder:
        callbacks = [LossGeometry(record=folder, **settings({"ranks": lg.ranks}))]
    if folder and SHARED:  # which waits for ever where one process alone knows what it monitors
        best = {"monitor": "lossgeom/sharpness", "every_n_train_steps": 1, "mode": "max"}
        callbacks.append(pl.callbacks.ModelCheckpoint(sys.argv[2] + "/best", **best))
    quiet = {"logger": False, "enable_progress_bar": False}
    trainer = pl.Trainer(
        max_steps=MOST,
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        callbacks=callbacks,
        enable_checkpointing=bool(folder and SHARED),
        enable_model_summary=False,
        **quiet,
    )
    trainer.fit(module, loader(4))
    if folder and not SHARED and trainer.is_global_zero:
        assert "lossgeom/loss" not in trainer.callback_metrics  # the others would not have it
    if folder and SHARED:
        assert Path(trainer.checkpoint_callback.best_model_path).exists()
    tell(trainer.callback_metrics)
    return module


def transformers(folder):
    framework("transformers.trainer")
    import transformers as hf

    from lossgeom.integrations.transformers import monitor

    model = Classifier()
    arguments = hf.TrainingArguments(
        str(Path(sys.argv[2]) / "hf"),
        max_steps=MOST,
        per_device_train_batch_size=4,
        use_cpu=True,
        ddp_backend="gloo",
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    trainer = hf.Trainer(model, arguments, train_dataset=examples(), optimizers=optimizer_of(model))
    if folder:
        monitor(trainer, record=folder, **settings({"ranks": lg.ranks()}))
    trainer.train()
    tell({key: value for row in trainer.state.log_history for key, value in row.items()})
    return model


def accelerate(folder):
    mine = framework("accelerate").Accelerator(cpu=True)
    from lossgeom.integrations.accelerate import monitor

    inner = Classifier()
    model, optimizer, data = mine.prepare(inner, optimizer_of(inner)[0], loader(4))
    given = settings({"ranks": lg.ranks()})
    with monitor(mine, model, optimizer, record=folder or sys.argv[2] + "/plain", **given) as run:
        if not folder:
            run.close()  # nothing is watched
        for _, batch in zip(range(MOST), data, strict=False):
            optimizer.zero_grad()
            mine.backward(model(**batch)["loss"])
            optimizer.step()
    if SHARED:
        tell({f"lossgeom/{name}": found for name, found in run.last.items()})
    return inner


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    train = {"lightning": lightning, "transformers": transformers, "accelerate": accelerate}
    own, watched = (train[sys.argv[1]](folder) for folder in (None, sys.argv[2] + "/record"))
    assert bits(own) == bits(watched)
    assert bits(own) != bits(Classifier())
