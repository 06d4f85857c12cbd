"""The callback of Hugging Face's Trainer, in runs of it."""

import copy
import itertools
import re
import sys
from pathlib import Path

import pytest
import torch

import lossgeom as lg
from lossgeom.problem.recomputation import bytes_of_parts
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
    examples,
    of_memory,
    optimizer_of,
    plain_run,
    told,
)


@pytest.fixture(scope="module")
def hf():
    framework("transformers.trainer")
    return framework("transformers")


@pytest.fixture
def monitor(hf):
    from lossgeom.integrations.transformers import monitor

    return monitor


def trainer_of(hf, model, folder, data=None, callbacks=(), **settings):
    asked = {
        "max_steps": STEPS,
        "per_device_train_batch_size": 8,
        "max_grad_norm": 0,
        "train_sampling_strategy": "sequential",
        "logging_steps": 1,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": True,
        "dataloader_pin_memory": False,
    }
    return hf.Trainer(
        model,
        hf.TrainingArguments(str(folder), **{**asked, **settings}),
        train_dataset=data or examples(),
        optimizers=optimizer_of(model),
        callbacks=list(callbacks),
    )


def test_the_examples_run(monitor):
    assert_examples_run(sys.modules[monitor.__module__])


def test_the_page_runs(tmp_path, monkeypatch, capsys, monitor):
    monkeypatch.chdir(tmp_path)
    assert_page_runs("Trainer", capsys)


@pytest.mark.usefixtures("hf")
def test_the_page_on_large_models_runs(tmp_path, monkeypatch, capsys):
    """With a small network and vocabulary in the place of those of 124 million parameters."""
    monkeypatch.chdir(tmp_path)
    page = (Path(lg.__file__).parents[2] / "docs/how-to/large-models.md").read_text()
    code = "\n".join(re.findall(r"```py\n(.*?)```", page, re.DOTALL))
    changes = {
        "GPT2Config()": "GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=257)",
        "randint(50257,": "randint(257,",
        "8 * 2**30": "2**30",
    }
    assert all(each in code for each in changes)
    for each, small in changes.items():
        code = code.replace(each, small)
    exec(code, {})
    said = capsys.readouterr().out
    assert "at most 1,024 MB" in said
    assert re.search(r"sharpness [\d.e+-]+, \d+ products, converged: True", said)


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


def test_numbers_are_among_those_of_the_trainer_and_disturb_none(tmp_path, hf, monitor):
    """Also where a metric fails, and a subclass collects what it logs."""
    seen, averages = [], []

    class Reporter(hf.TrainerCallback):
        def on_log(self, args, state, control, logs, **_):
            seen.append((state.global_step, dict(logs)))

        def on_pre_optimizer_step(self, args, state, control, **_):
            control.should_log = state.global_step == 1

    class Own(hf.Trainer):
        def log(self, logs, *rest):
            averages.append(self.state.global_step)
            super().log(logs, *rest)

    own, left = [], []
    for watched in (False, True):
        model, metrics = Classifier(dropout=0.2), [*FEW["metrics"], Broken()]
        trainer = trainer_of(hf, model, tmp_path, callbacks=[Reporter()], logging_steps=2)
        trainer.__class__ = Own
        torch.manual_seed(1)
        if watched:
            asked = {**FEW, "metrics": metrics, "every": 2}
            geometry = monitor(trainer, record=tmp_path / "record", **asked)
            with pytest.warns(UserWarning, match="broken could not be measured at step 0"):
                trainer.train()
        else:
            trainer.train()
        history = trainer.state.log_history
        own.append([row for row in history if "loss" in row])
        left.append((bits(model), torch.get_rng_state().numpy().tobytes()))
    assert own[0] == own[1]
    assert left[0] == left[1]
    assert averages[: len(averages) // 2] == averages[len(averages) // 2 :]
    mine = [row for row in history if "lossgeom/loss" in row]
    steps, losses = geometry.run.record.series("loss")
    assert [row["step"] for row in mine] == steps == [0, 2, 4]
    assert [row["lossgeom/loss"] for row in mine] == losses
    reported = [(step, logs["lossgeom/loss"]) for step, logs in seen if "lossgeom/loss" in logs]
    assert reported == list(zip(steps, losses, strict=True))


def llama(hf):
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2}
    layers = {"num_hidden_layers": 2, "num_key_value_heads": 2}
    return hf.LlamaForCausalLM(hf.LlamaConfig(vocab_size=13, **sizes, **layers, use_cache=False))


def texts(n=8):
    tokens = torch.randint(13, (n, 7), generator=torch.Generator().manual_seed(3))
    return [{"input_ids": row, "labels": row} for row in tokens]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4, "max_grad_norm": 1.0},
        {"label_smoothing_factor": 0.1},
        {"bf16": True, "activation_checkpointing": True},
    ],
)
def test_the_loss_of_a_language_model_is_the_one_that_is_trained(tmp_path, hf, monitor, settings):
    left, data = [], texts()
    batch = {key: torch.stack([each[key] for each in data]) for key in data[0]}
    for watched in (False, True):
        model = llama(hf)
        trainer = trainer_of(hf, model, tmp_path, data, max_steps=2, **settings)
        if watched:
            geometry = monitor(
                trainer,
                "next_token_cross_entropy",
                [batch],
                tmp_path / "record",
                every=1,
                budget=None,
                metrics=FEW["metrics"],
            )
        trainer.train()
        left.append(bits(model))
    assert left[0] == left[1]
    trained = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    steps, losses = geometry.run.record.series("loss")
    assert steps == [0, 1]
    assert losses == pytest.approx(trained, rel=1e-2 if "bf16" in settings else 1e-5)
    assert not [note for note in geometry.run.record.for_report.notes if "checkpoint" in note]


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_layers_that_are_computed_again_are_so_in_both_modes(hf, mode):
    """Without the keys and values that they would keep for the next token."""
    torch.manual_seed(0)
    sizes = {"n_positions": 16, "n_embd": 8, "n_layer": 2, "n_head": 2, "bos_token_id": 0}
    model = hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=13, eos_token_id=0, **sizes))
    tokens = torch.stack([each["input_ids"] for each in texts()])
    data, products = [{"input_ids": tokens, "labels": tokens}], []
    for _ in range(2):
        p = lg.Problem(model, "next_token_cross_entropy", data, mode=mode, seed=0)
        products.append(lg.Hessian(p) @ torch.ones_like(p.theta))
        model.activation_checkpointing_enable()
    torch.testing.assert_close(*products)
    parts = bytes_of_parts(p.outputs(p.leaf(), p.first_batch()))
    assert len(parts) == 2
    assert model.is_activation_checkpointing


def test_only_the_adapter_of_a_model_is_measured(tmp_path, hf, monitor):
    peft = pytest.importorskip("peft", reason="peft is not installed")
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    data, model = texts(), peft.get_peft_model(llama(hf), config)
    trainer = trainer_of(hf, model, tmp_path, data, max_steps=1)
    batch = {key: torch.stack([each[key] for each in data]) for key in data[0]}
    asked = {"every": 1, "metrics": FEW["metrics"]}
    loss, record = "next_token_cross_entropy", tmp_path / "record"
    geometry = monitor(trainer, loss, [batch], record, **asked)
    trainer.train()
    size = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert geometry.run.problem.theta.numel() == size
    assert geometry.run.record.series("loss")[0] == [0]


def test_a_run_goes_on_from_a_checkpoint_in_its_record(tmp_path, hf, monitor):
    class Stop(hf.TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            control.should_training_stop = state.global_step == 4

    record, asked = tmp_path / "record", {"save_strategy": "steps", "save_steps": 2}
    whole = monitor(trainer_of(hf, Classifier(), tmp_path), record=tmp_path / "whole", **FEW)
    whole.trainer.train()
    first = trainer_of(hf, Classifier(), tmp_path, callbacks=[Stop()], **asked)
    monitor(first, record=record, **FEW)
    first.train()
    second = trainer_of(hf, Classifier(), tmp_path, **asked)
    geometry = monitor(second, record=record, **FEW)
    second.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert geometry.run.record.series("loss") == whole.run.record.series("loss")


def raising(steps):
    """A data set that cannot be read to its end."""

    class Data(torch.utils.data.IterableDataset):
        def __iter__(self):
            yield from itertools.islice(itertools.cycle(examples()), 8 * steps)
            raise ArithmeticError("of the data")

    return Data()


def test_an_error_ends_the_record_as_failed_in_a_block(tmp_path, hf, monitor):
    trainer = trainer_of(hf, Classifier(), tmp_path, raising(3))
    with pytest.raises(ArithmeticError), monitor(trainer, record=tmp_path / "r", **FEW) as geometry:
        trainer.train()
    assert geometry.run.record.status == "failed"
    assert 0 in geometry.run.record.series("loss")[0]


def test_without_a_block_an_error_leaves_the_record_open(tmp_path, hf, monitor):
    trainer = trainer_of(hf, Classifier(), tmp_path, raising(3), max_steps=3)
    geometry = monitor(trainer, record=tmp_path / "r", **FEW)
    with pytest.raises(ArithmeticError):
        trainer.train()
    first = geometry.run
    assert first.record.status == "running"
    trainer.train_dataset = examples()
    with pytest.warns(UserWarning, match="holds measurements up to step|holds another run"):
        trainer.train()  # a second time, with hooks of this one alone
    assert len(trainer.optimizer.optimizer._optimizer_step_pre_hooks) == 0
    assert first.step < 3


def test_a_callback_alone_writes_a_record(tmp_path, hf, monitor):
    from lossgeom.integrations.transformers import LossGeometryCallback

    callback = LossGeometryCallback(record=tmp_path / "record", **FEW)
    trainer = trainer_of(hf, Classifier(), tmp_path, callbacks=[callback], max_steps=2)
    trainer.train()
    assert callback.run.record.series("loss")[0] == [0, 1]
    assert not [row for row in trainer.state.log_history if "lossgeom/loss" in row]
    assert copy.deepcopy(callback).run is None
    with pytest.raises(lg.RecordError, match="holds a run that is over"):
        trainer.train()


@pytest.mark.slow
def test_memory_does_not_grow_over_3000_watched_steps(tmp_path, hf, monitor):
    """But by what the Trainer keeps itself, its history."""
    heap = Heap()
    trainer = trainer_of(hf, Classifier(), tmp_path, max_steps=3000, logging_steps=10000)
    monitor(trainer, record=tmp_path / "record", **of_memory(heap))
    trainer.train()
    heap.check()
