"""Training with one technique."""

from __future__ import annotations

from dataclasses import replace

from lossgeom.lab.datasets import Dataset
from lossgeom.lab.studies._network import build
from lossgeom.lab.studies._solution import solve
from lossgeom.lab.studies._study import SeedRun
from lossgeom.lab.studies._sweep import steps
from lossgeom.lab.studies.regularisers.config import Config
from lossgeom.recording.record import Record


def run(run: SeedRun[Config], record: Record) -> None:
    """Train, and measure at the end on the examples as they are."""
    network = run.study.network
    model, data = build(network, run.seed)
    solve(
        run.study.recipe(**run.place), model, as_images(data), record, seed=run.seed,
        chunk=network.chunk, every=steps(run), measured_on=run.study.measured_on,  # at both ends
    )  # fmt: skip


def as_images(data: Dataset) -> Dataset:
    """Digits as images of one channel, which are rows of 64 pixels; other images as they are."""
    if data.train[0].ndim != 2:
        return data
    train, test = ((x.reshape(-1, 1, 8, 8), y) for x, y in (data.train, data.test))
    return replace(data, train=train, test=test)
