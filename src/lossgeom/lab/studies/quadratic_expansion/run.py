"""Descent of the network and of its models, from the same point."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from lossgeom.lab.datasets import DATASETS, digits
from lossgeom.lab.models import mlp
from lossgeom.lab.studies._study import SeedRun
from lossgeom.lab.studies.quadratic_expansion.config import Config
from lossgeom.problem import Problem
from lossgeom.quadratic import (
    Descent,
    TaylorModel,
    descend_parameters,
    distance,
    network,
    taylor,
    taylor_error,
)
from lossgeom.recording.for_report import ForReport
from lossgeom.recording.record import Record

ALL_DIGITS = 1796  # out of which the two classes are taken


def run(run: SeedRun[Config], record: Record) -> None:
    """Descend, and for a model also along the path of the network, where its error is measured."""
    study, lr, model = run.study, run.place["lr"], run.place["model"]
    problem = build(study, run.seed)
    before = descend_parameters(network(problem), Descent(study.start, lr, observe={}))
    problem = problem.at(problem.theta + before.final["theta"][0])
    descent = Descent(study.steps - study.start, lr, every=study.every)
    planned = tuple(study.start + step for step in descent.recorded_steps)
    record.describe(ForReport(planned_steps=planned, thresholds={"ntk": 2 / lr}))
    record.update(parameters=problem.theta.numel())
    if model == "network":
        trajectory = descend_parameters(network(problem), descent)
        found = trajectory.recorded
    else:
        expanded = taylor(problem, 1 if model == "linear" else 2)
        trajectory = descend_parameters(expanded, descent)
        found = {**along_the_network(problem, expanded, descent), **trajectory.recorded}
    write(record, [study.start + int(step) for step in trajectory.steps], found)
    if trajectory.diverged.any():
        record.update(diverged_at=study.start + int(trajectory.diverged_at[0]))
    record.finish("diverged" if trajectory.diverged.any() else "finished")


def build(config: Config, seed: int) -> Problem:
    """The squared error of the network at its initialisation."""
    x, y = two_classes(config, seed)
    model: nn.Module = mlp(x.shape[1], 1, config.widths, config.activation, seed)
    return Problem(model, "squared_error", [(x, y)], dtype=torch.float64)


def two_classes(config: Config, seed: int) -> tuple[Tensor, Tensor]:
    """Inputs, twice their distance from the mean, and targets -1 and 1."""
    if config.data == "digits":
        inputs, labels = digits(ALL_DIGITS, seed).train
    else:
        where = {"folder": config.folder} if config.folder else {}
        load = partial(DATASETS[config.data], classes=config.classes, **where)
        inputs, places = load(config.examples, seed).train
        labels = torch.tensor(config.classes)[places]
    chosen = torch.isin(labels, torch.tensor(config.classes)).nonzero()[: config.examples, 0]
    if len(chosen) < config.examples:
        raise ValueError(
            f"expected at most {len(chosen)} examples of two classes, the data has no more"
        )
    x = inputs[chosen].flatten(1)
    y = torch.where(labels[chosen] == config.classes[0], -1.0, 1.0)
    return 2 * (x - x.mean(0)), y[:, None]


def along_the_network(
    problem: Problem, expanded: TaylorModel, descent: Descent
) -> Mapping[str, Tensor]:
    """How far the network is from its model, and from the start."""
    observe = {"taylor_error": taylor_error(expanded), "distance": distance}
    return descend_parameters(network(problem), replace(descent, observe=observe)).recorded


def write(record: Record, steps: Sequence[int], found: Mapping[str, Tensor]) -> None:
    """Append a row for each number that is not there yet."""
    for i, step in enumerate(steps):
        for name, values in found.items():
            value = values[i, 0].item()
            status = "ok" if math.isfinite(value) else "nonfinite"
            if (step, name) not in record.measured:
                record.append({"step": step, "metric": name, "value": value, "status": status})
