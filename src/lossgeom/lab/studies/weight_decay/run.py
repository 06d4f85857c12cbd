"""Training with each weight decay and learning rate."""

from __future__ import annotations

from lossgeom.lab.studies._network import build
from lossgeom.lab.studies._solution import mediators, solve
from lossgeom.lab.studies._study import SeedRun
from lossgeom.lab.studies.weight_decay.config import Config
from lossgeom.recording.record import Record


def run(run: SeedRun[Config], record: Record) -> None:
    """Train, and measure the solution and the mediators there."""
    study, network = run.study, run.study.network
    model, data = build(network, run.seed)
    recipe = study.recipe(run.place)
    every = -(-recipe.steps(network.examples) // study.measurements)
    solve(
        recipe, model, data, record, seed=run.seed, chunk=network.chunk, every=every,
        further=lambda problem: mediators(problem.take(study.mediated), run.seed),
    )  # fmt: skip
