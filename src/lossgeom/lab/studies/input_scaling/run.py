"""Training on inputs of several scales."""

from __future__ import annotations

from dataclasses import replace

from lossgeom.lab.studies._network import build_with_indicators
from lossgeom.lab.studies._solution import JACOBIAN, JACOBIAN_MAX, SHARPNESS, mediators, solve
from lossgeom.lab.studies._study import SeedRun
from lossgeom.lab.studies.input_scaling.config import Config
from lossgeom.recording.record import Record


def run(run: SeedRun[Config], record: Record) -> None:
    """Train, and measure along training; at the end the mediators, of a first chunk of examples."""
    study = run.study
    network = replace(study.network, input_scale=run.place["input_scale"])
    few = min(network.chunk, network.examples)
    model, data = build_with_indicators(network, run.seed, centred=True)
    solve(
        study.training.recipe, model, data, record, seed=run.seed, chunk=network.chunk,
        every=study.training.every, measured_on=study.training.measured_on,
        loss="squared_error", along=(SHARPNESS, JACOBIAN_MAX), at_end=(JACOBIAN,),
        further=lambda problem: mediators(problem.take(few), run.seed),
    )  # fmt: skip
