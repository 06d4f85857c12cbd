"""Training with each learning rate and batch size."""

from __future__ import annotations

from lossgeom.lab.studies._network import build
from lossgeom.lab.studies._solution import solve
from lossgeom.lab.studies._study import SeedRun
from lossgeom.lab.studies.learning_rate.config import Config
from lossgeom.recording.record import Record


def run(run: SeedRun[Config], record: Record) -> None:
    """Train for as many epochs as all others, and measure the solution."""
    study, network = run.study, run.study.network
    model, data = build(network, run.seed)
    recipe = study.recipe(run.place)
    every = -(-recipe.steps(network.examples) // study.measurements)
    solve(recipe, model, data, record, seed=run.seed, chunk=network.chunk, every=every)
