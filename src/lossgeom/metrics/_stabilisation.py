"""The coefficients of self-stabilisation at a step, computed once."""

from __future__ import annotations

from lossgeom.curvature import Hessian
from lossgeom.estimate import Estimate
from lossgeom.metrics._of_step import top_pair
from lossgeom.metrics.step import Step
from lossgeom.problem.model_facts import Key
from lossgeom.stability import SelfStabilisation, noise_along, self_stabilisation


def stabilisation_of(step: Step, tol: float, max_matvecs: int, seed: int) -> SelfStabilisation:
    """The coefficients, from the eigenvector that metrics of the sharpness have."""

    def found() -> SelfStabilisation:
        pairs = top_pair(step, Hessian(step.before), tol, max_matvecs, seed)
        return self_stabilisation(step.before, pairs=pairs)

    return step.cache.value(Key(stabilisation_of, (tol, max_matvecs, seed)), found)


def noise_of(
    step: Step, at: SelfStabilisation, batch_size: int | None, batches: int, seed: int
) -> Estimate:
    """The noise of batches along the sharpest direction."""

    def found() -> Estimate:
        settings = {"batches": batches, "seed": seed}
        return noise_along(step.before, at.vector, batch_size=batch_size, **settings)

    return step.cache.value(Key(noise_of, (batch_size, batches, seed)), found)
