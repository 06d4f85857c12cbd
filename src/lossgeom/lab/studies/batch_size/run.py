"""Training with each batch size and learning rate, for equal epochs and for equal updates."""

from __future__ import annotations

from lossgeom.lab.studies._network import build
from lossgeom.lab.studies._solution import solve
from lossgeom.lab.studies._study import SeedRun
from lossgeom.lab.studies.batch_size.config import Config
from lossgeom.lipschitz import local_variation
from lossgeom.problem import Problem
from lossgeom.recording.record import Record

FOUND, CERTIFIED = "variation_found", "variation_certified"


def run(run: SeedRun[Config], record: Record) -> None:
    """Train, and measure the solution; at the largest learning rate the local variation, too."""
    study, network = run.study, run.study.network
    model, data = build(network, run.seed)
    recipe = study.recipe(run.place)
    every = -(-recipe.steps(network.examples) // study.measurements)

    def further(problem: Problem) -> dict[str, float]:
        return variation(problem, study, run.seed) if recipe.lr == study.lr[-1] else {}

    solve(
        recipe, model, data, record, seed=run.seed, chunk=network.chunk, every=every,
        further=further,
    )  # fmt: skip


def variation(problem: Problem, study: Config, seed: int) -> dict[str, float]:
    """Both sides of the local variation of the Jacobian, in the mean over examples."""
    some = problem.in_mode("eval").take(study.varied)
    bracket = local_variation(some, study.radius, seed=seed)
    return {FOUND: bracket.lower.mean().item(), CERTIFIED: bracket.upper.mean().item()}
