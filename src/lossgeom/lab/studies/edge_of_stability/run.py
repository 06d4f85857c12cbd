"""Training with each optimiser, and how near its steps are to their edge."""

from __future__ import annotations

from collections.abc import Iterator

from lossgeom.lab.studies._network import build_with_indicators, in_chunks
from lossgeom.lab.studies._study import SeedRun
from lossgeom.lab.studies._training import train
from lossgeom.lab.studies.edge_of_stability.config import Config
from lossgeom.lab.studies.edge_of_stability.optimizers import OPTIMIZERS, WITHOUT_THRESHOLD
from lossgeom.lab.training import optimize
from lossgeom.metrics import (
    EdgeRatio,
    Loss,
    Memory,
    Metric,
    RealisedEdge,
    StepMetric,
    UpdateCurvature,
)
from lossgeom.problem import Problem
from lossgeom.recording.edge_lines import CONSTANT
from lossgeom.recording.record import Record
from lossgeom.recording.tracker import Tracker

LOSS, EDGE_RATIO = Loss(), EdgeRatio(tol=0.01)  # an eigenvalue is then good to about four digits
REALISED_EDGE, UPDATE_CURVATURE = RealisedEdge(), UpdateCurvature()


def metrics_of(optimizer: str) -> tuple[Metric | StepMetric, ...]:
    """What is measured: distance from a threshold only where the optimiser has one."""
    if optimizer in WITHOUT_THRESHOLD:
        return LOSS, REALISED_EDGE, UPDATE_CURVATURE
    return LOSS, EDGE_RATIO, REALISED_EDGE, UPDATE_CURVATURE


def run(run: SeedRun[Config], record: Record) -> None:
    """Train with an optimiser on the full batch, and measure its steps."""
    study, metrics = run.study, metrics_of(run.place["optimizer"])
    model, data = build_with_indicators(study.network, run.seed)
    batches = in_chunks(data.train, study.network.chunk)
    optimizers = OPTIMIZERS[run.place["optimizer"]](study, model)
    problem = Problem(model, "squared_error", batches, mode="train")
    edges = {metric.name: CONSTANT[metric.name] for metric in metrics if metric.name in CONSTANT}
    tracker = Tracker(problem, metrics, record, study.every, thresholds=edges)
    memory = Memory()
    record.update(data=data.scaling)

    def training(first: int) -> Iterator[int]:
        tracker.attach(  # while the optimisers live
            *optimizers, full_batch=True, first_step=first, memory=memory
        )
        return optimize(
            model, problem.criterion, batches,
            optimizers=optimizers, steps=study.steps, first=first,
        )  # fmt: skip

    ended = train(
        model, record, training,
        steps=study.steps, every=study.every, at_end=False,
        optimizers=optimizers, others=[memory],
    )  # fmt: skip
    record.finish(ended)
