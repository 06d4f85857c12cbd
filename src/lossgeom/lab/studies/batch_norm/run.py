"""Full-batch gradient descent, with what batch normalisation is in training and in use."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from lossgeom.lab.studies._network import Examples, build, in_chunks, on_first
from lossgeom.lab.studies._solution import JACOBIAN, SHARPNESS, SOFTMAX_JACOBIAN, InUse
from lossgeom.lab.studies._study import SeedRun
from lossgeom.lab.studies._training import train
from lossgeom.lab.studies.batch_norm.config import KINDS, Config
from lossgeom.lab.training import gradient_descent
from lossgeom.metrics import InMode, Loss, Metric
from lossgeom.problem import Problem
from lossgeom.recording.for_report import ForReport
from lossgeom.recording.record import Record
from lossgeom.recording.tracker import Tracker

LOSS = Loss(minus_label_entropy=True)
EVAL_SHARPNESS = InMode(SHARPNESS, "eval")
BATCH_JACOBIAN = InUse("jacobian_norm_of_batches", JACOBIAN)


def run(run: SeedRun[Config], record: Record) -> None:
    """Train with gradient descent and measure on the training set."""
    study, kind = run.study, run.place["kind"]
    (normed, at_edge), lr = KINDS[kind], study.rate(kind)
    model, data = build(replace(study.network, batch_norm=normed), run.seed)
    batches = in_chunks(data.train, study.network.chunk)
    twin = copy.deepcopy(model)
    here, there = (
        Problem(
            each, "cross_entropy", batches, mode="train",
            label_smoothing=run.place["label_smoothing"],
        )
        for each in (model, twin)
    )  # fmt: skip
    some, there = (
        on_first(each, study.measured_on, study.network.examples) for each in (here, there)
    )
    metrics: list[Metric] = [SHARPNESS, JACOBIAN, *([SOFTMAX_JACOBIAN] if at_edge else [])]
    trackers = (
        Tracker(here, [LOSS], record, study.every),
        Tracker(some, metrics, record, study.every, {SHARPNESS.name: 2 / lr}),
    )
    two_modes = normed and at_edge  # which statements compare there
    late = range(0, study.steps + 1, study.every)[study.early :]
    in_eval_mode = Tracker(some, [EVAL_SHARPNESS], record, late)
    of_batches = Tracker(there, [BATCH_JACOBIAN], record, study.every)
    record.update(data=data.scaling)
    record.describe(ForReport(planned_at_end=(EVAL_SHARPNESS.name,) * two_modes))

    def at_step(step: int) -> None:
        for tracker in trackers:
            tracker(step)
        if two_modes and step % study.every == 0:
            in_eval_mode(step)
            take_statistics(twin, model, batches)
            of_batches(step)

    training = partial(gradient_descent, model, here.criterion, batches, lr=lr, steps=study.steps)
    ended = train(
        model, record, training, steps=study.steps, every=study.every, at_step=at_step
    )  # fmt: skip
    record.finish(ended)


def take_statistics(twin: nn.Module, model: nn.Module, batches: Sequence[Examples]) -> None:
    """Copy a model, with the mean statistics of the batches in the place of running ones."""
    twin.load_state_dict(model.state_dict())
    for module in twin.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.momentum = None  # all batches count alike
            module.reset_running_stats()
    with torch.no_grad():
        for inputs, _ in batches:
            twin(inputs)
