"""SGD, the search for a posterior around where it ends, and the errors of both."""

from __future__ import annotations

import math
from copy import deepcopy

import torch

from lossgeom.batches import Batch
from lossgeom.bounds import Epoch, kl_inverse, pac_bayes
from lossgeom.lab.studies._network import in_chunks
from lossgeom.lab.studies._stages import append_missing
from lossgeom.lab.studies._study import SeedRun
from lossgeom.lab.studies.pac_bayes.config import Config
from lossgeom.lab.studies.pac_bayes.network import LOSS, data, initialised, trained
from lossgeom.problem import Problem
from lossgeom.recording.bound_search import numbers_of
from lossgeom.recording.for_report import ForReport
from lossgeom.recording.record import Record

BASES = ("standard", "decoupled", "recomputed")  # BASE, APPR and ITER
EVERY = 10  # epochs between rows

# Metrics at the end
BOUND, TRAIN_ERROR, TEST_ERROR = "bound", "train_error", "test_error"
SGD_TRAIN_ERROR, SGD_TEST_ERROR, WITHOUT_KL = "sgd_train_error", "sgd_test_error", "without_kl"
AT_END = (BOUND, TRAIN_ERROR, TEST_ERROR, SGD_TRAIN_ERROR, SGD_TEST_ERROR, WITHOUT_KL)


def run(run: SeedRun[Config], record: Record) -> None:
    """Train a network, and search for the bound of networks around it."""
    study = run.study
    examples, others = data(run)
    model = initialised(study.network, examples[0][0], run.seed)
    prior = deepcopy(model)
    for _ in trained(run, model, examples):
        pass
    problem = Problem(model, LOSS, in_chunks(examples, study.batch_size))
    held_out = Problem(model, LOSS, in_chunks(others, study.network.chunk))
    last = study.bound_epochs
    steps = sorted({*range(EVERY, last + 1, EVERY), last})
    record.describe(ForReport(planned_steps=tuple(steps), planned_at_end=AT_END))

    def on_epoch(epoch: Epoch) -> None:
        if epoch.epoch in steps:
            append_missing(record, epoch.epoch, numbers_of(epoch))

    found = pac_bayes(
        problem, prior=prior, basis=run.place["basis"], epochs=last, lr=study.bound_lr,
        samples=study.samples, seed=run.seed, on_epoch=on_epoch,
    )  # fmt: skip
    drawn = found.stochastic_error(held_out, samples=study.samples, seed=run.seed)
    on_train, delta = error(problem), found.bound.inputs["delta"]
    at_end = (
        found.value, found.empirical_error.value, drawn.value, on_train, error(held_out),
        without_kl(on_train, len(examples[0]), delta),
    )  # fmt: skip
    append_missing(record, last, dict(zip(AT_END, at_end, strict=True)))
    record.finish("diverged" if found.diverged else "finished")


@torch.no_grad()
def error(problem: Problem) -> float:
    """The share of examples that a network with one output gets wrong."""

    def terms(batch: Batch) -> tuple[torch.Tensor, float]:
        said = problem.outputs(problem.theta, batch) > 0
        return (said != batch.targets.bool()).double().sum(), len(batch)

    return problem.mean(terms).item()


def without_kl(train_error: float, examples: int, delta: float) -> float:
    """The bound of Chernoff, for a network that does not depend on the examples."""
    return kl_inverse(train_error, math.log(1 / delta) / examples)
