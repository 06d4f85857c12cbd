"""Training with smoothed labels, and what Theorem 5.1 says of the Jacobian on the way."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch.optim import Adam

from lossgeom.bounds import Cube, jacobian_from_separation
from lossgeom.lab.studies._network import in_chunks, on_first
from lossgeom.lab.studies._stages import append_missing
from lossgeom.lab.studies._study import SeedRun
from lossgeom.lab.studies._training import train
from lossgeom.lab.studies.sharpening_lower_bound.config import Config
from lossgeom.lab.studies.sharpening_lower_bound.task import (
    INTERVAL,
    Examples,
    divergences,
    kl,
    task_of,
)
from lossgeom.lab.training import optimize
from lossgeom.lipschitz import Bracket, local_variation_upper
from lossgeom.problem import Problem
from lossgeom.recording.record import Record
from lossgeom.smoothness import jacobian_norms

EPSILON = 0.05
LOSS, FIT, VARIATION, JACOBIAN = "loss", "fit", "variation", "jacobian"
BOUND, WITHOUT_FIT = "bound", "bound_without_fit"


def run(run: SeedRun[Config], record: Record) -> None:
    """Train with Adam, and measure on the training set."""
    study = run.study
    model, examples = task_of(run)
    batches, some, lr = [examples], examples, study.lr
    if run.place["task"] != INTERVAL:
        batches, lr = in_chunks(examples, study.network.chunk), study.image_lr
        if study.measured_on:
            inputs, targets = examples
            some = inputs[: study.measured_on], targets[: study.measured_on]
    problem = on_first(Problem(model, kl, batches), len(some[0]), len(examples[0]))
    adam = Adam([p for p in model.parameters() if p.requires_grad], lr)

    def at_step(step: int) -> None:
        last = named(WITHOUT_FIT, run.place["task"])
        if step % study.every == 0 and (step, last) not in record.measured:
            append_missing(record, step, measured(run, problem.refreshed(), some))

    training = partial(optimize, model, kl, batches, optimizers=[adam], steps=study.steps)
    ended = train(
        model, record, training,
        steps=study.steps, every=study.every, at_step=at_step, optimizers=[adam],
    )  # fmt: skip
    record.finish(ended)


def measured(run: SeedRun[Config], problem: Problem, examples: Examples) -> dict[str, float]:
    """The loss, the fit and the Jacobian norm, and the bound with that fit and with none.

    Balls that cover the support of images are too large to say anything. The local variation there
    is set to 0, and the support declared convex: that is no theorem, but what is left of one.
    """
    inputs, targets = examples
    with torch.no_grad():
        outputs = problem.over_batches(lambda batch: problem.outputs(problem.theta, batch))
    costs = divergences(torch.cat(outputs), targets)
    fit = math.sqrt(max(costs.max().item(), 0.0))
    if run.place["task"] == INTERVAL:
        upper = local_variation_upper(problem, Cube(1).radius(len(inputs), EPSILON))
    else:
        upper = torch.zeros(len(inputs))
    variation = Bracket(torch.zeros_like(upper), upper)
    bound = partial(
        jacobian_from_separation,
        inputs.flatten(1),
        targets,
        variation,
        epsilon=EPSILON,
        convex=True,
    )
    found = {
        LOSS: costs.mean().item(),
        FIT: fit,
        VARIATION: variation.max[1],
        JACOBIAN: jacobian_norms(problem).max,
        BOUND: bound(fit=fit).value,
        WITHOUT_FIT: bound(fit=0.0).value,
    }
    return {named(name, run.place["task"]): value for name, value in found.items()}


def named(metric: str, task: str) -> str:
    """The name of a metric in the records of a task."""
    return metric if task == INTERVAL else f"{task}_{metric}"
