"""Training with each batch size and learning rate, for equal epochs and for equal updates."""

from __future__ import annotations

from collections.abc import Iterator

from lossgeom.lab.studies._study import SeedRun
from lossgeom.lab.studies._sweep import train_and_measure
from lossgeom.lab.studies.batch_size.config import Config
from lossgeom.lipschitz import local_variation
from lossgeom.problem import Problem
from lossgeom.recording.record import Record

FOUND, CERTIFIED = "variation_found", "variation_certified"


def run(run: SeedRun[Config], record: Record) -> None:
    """Train, and measure the solution; at the largest learning rate the local variation, too."""
    study = run.study

    def variation(problem: Problem) -> Iterator[dict[str, float]]:
        """Yield both sides of it, in the mean over examples."""
        if run.place["lr"] < study.lr[-1]:
            return
        some = problem.in_mode("eval").take(study.varied)
        bracket = local_variation(some, study.radius, seed=run.seed)
        yield {FOUND: bracket.lower.mean().item(), CERTIFIED: bracket.upper.mean().item()}

    train_and_measure(run, record, variation)
