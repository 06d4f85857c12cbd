"""Training at two learning rates, with every label smoothing."""

from __future__ import annotations

from functools import partial

from lossgeom.lab.studies._network import build, in_chunks, on_first
from lossgeom.lab.studies._study import SeedRun
from lossgeom.lab.studies._training import train
from lossgeom.lab.studies.progressive_sharpening.config import Config
from lossgeom.lab.training import gradient_descent
from lossgeom.metrics import Accuracy, JacobianNorm, Loss, Metric, Sharpness
from lossgeom.problem import Problem
from lossgeom.recording.record import Record
from lossgeom.recording.tracker import Tracker

LOSS = Loss(minus_label_entropy=True)
SHARPNESS = Sharpness(tol=0.01)  # an eigenvalue is then good to about four digits
JACOBIAN = JacobianNorm(outputs="softmax", over="max")
ON_ALL: tuple[Metric, ...] = (LOSS, Accuracy())
ON_SOME: tuple[Metric, ...] = (
    SHARPNESS, JACOBIAN, JacobianNorm(outputs="softmax", over="mean"),
)  # fmt: skip


def run(run: SeedRun[Config], record: Record) -> None:
    """Train with gradient descent and measure on the training set."""
    network, lr, smoothing = run.study.network, run.place["lr"], run.place["label_smoothing"]
    steps, every = run.study.rhythm(lr)
    model, data = build(network, run.seed)
    batches = in_chunks(data.train, network.chunk)
    problem = Problem(
        model, "cross_entropy", batches, label_smoothing=smoothing, mode="train"
    )  # fmt: skip
    some = on_first(problem, run.study.measured_on, network.examples)
    trackers = (
        Tracker(problem, ON_ALL, record, every),
        Tracker(some, ON_SOME, record, every, thresholds={SHARPNESS.name: 2 / lr}),
    )
    record.update(data=data.scaling)
    training = partial(gradient_descent, model, problem.criterion, batches, lr=lr, steps=steps)
    ended = train(
        model, record, training, steps=steps, every=every,
        at_step=lambda step: [tracker(step) for tracker in trackers],
    )  # fmt: skip
    record.finish(ended)
