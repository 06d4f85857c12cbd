"""Training with each weight decay and learning rate."""

from __future__ import annotations

from lossgeom.lab.studies._solution import mediators
from lossgeom.lab.studies._study import SeedRun
from lossgeom.lab.studies._sweep import train_and_measure
from lossgeom.lab.studies.weight_decay.config import Config
from lossgeom.recording.record import Record


def run(run: SeedRun[Config], record: Record) -> None:
    """Train, and measure the solution and the mediators there."""
    few = run.study.mediated
    train_and_measure(run, record, lambda problem: mediators(problem.take(few), run.seed))
