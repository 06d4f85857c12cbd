"""The largest eigenvalue of the loss Hessian."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lossgeom.curvature import Hessian, sharpness
from lossgeom.estimate import Estimate
from lossgeom.linalg import EigenPairs, followed_pairs, top_eigenpairs
from lossgeom.messages.checks import check_at_least
from lossgeom.metrics._of_step import top_pair
from lossgeom.metrics._track import Track
from lossgeom.metrics.step import Step
from lossgeom.problem import Problem

TRACK = "track of the sharpness"


@dataclass(frozen=True)
class Sharpness:
    r"""The largest signed eigenvalue of the Hessian of the data loss.

    See :func:`lossgeom.sharpness` for the formula, the meaning of ``tol`` and the cost at a point.
    At a step of an optimiser it starts from the eigenvector of the step before.

    With ``tracked``, for a value at every step: it is measured by as few products as give an error
    of the value of ``tol``, and not at all where the parabola through the last three values, in the
    length of the path of the parameters, may be off by less. That is judged by the last three
    predictions, which a measurement has shown to be wrong by so much: 2.5 times the largest, in
    proportion to the product of the distances from the three values, as errors of a parabola are;
    and by the distance of the parabola from the straight line. Such a value says that it is
    ``predicted``, with that error as ``stderr``. The error is an expectation and no bound: a change
    that the path before gave no sign of, as of an eigenvalue that nobody followed, shows at the
    next measurement. Where predictions fail, as at the edge of stability, all steps are measured.
    Every ``search_every`` steps a random vector looks for larger eigenvalues, and only then a value
    is ``verified``.

    Cost of a step: 4 to 12 products; tracked, a dot product where it is predicted, and else 1 to 4
    products at a new point, the first about three gradients and each further one two.

    What it cannot tell: how near that is to the edge, which is for :class:`EdgeRatio`.

    Args:
        tol: relative.
        max_matvecs: products to spend on a value.
        seed: of random vectors.
        tracked: whether values may be predicted.
        search_every: steps after which a tracked eigenvalue is compared with others.

    >>> Sharpness().name
    'sharpness'
    """

    tol: float = 1e-3
    max_matvecs: int = 100
    seed: int = 0
    tracked: bool = False
    search_every: int = 100
    name = "sharpness"

    def __post_init__(self) -> None:
        check_at_least(1, search_every=self.search_every)

    def __call__(self, problem: Problem) -> Estimate:
        """Measure."""
        return sharpness(problem, tol=self.tol, max_matvecs=self.max_matvecs, seed=self.seed)

    def of_step(self, step: Step) -> Estimate:
        """Measure, or predict, at the parameters before a step."""
        if not self.tracked:
            hessian = Hessian(step.before)
            return top_pair(step, hessian, self.tol, self.max_matvecs, self.seed).top
        before = step.memory.get(TRACK)
        theta = step.before.theta
        if before is None or before.theta.shape != theta.shape:
            return self._searched(step, Track(theta, self.tol))
        track = before.moved(theta)
        error = track.error
        if error <= self.tol and track.steps < self.search_every:
            step.memory[TRACK] = track
            value = track.predicted()
            return Estimate(value, stderr=error * abs(value), verified=False, predicted=True)
        if track.steps >= self.search_every:
            return self._searched(step, track)
        return self._followed(step, track)

    def _followed(self, step: Step, track: Track) -> Estimate:
        """Measure from the eigenvectors that are known."""
        pairs = followed_pairs(
            Hessian(step.before),
            track.start(both=track.looks),
            tol=track.goal,
            next_value=None if track.near else track.next_value,
            max_matvecs=self.max_matvecs,
            seed=self.seed,
        )
        return _kept(step, track, pairs, searched=False)

    def _searched(self, step: Step, track: Track) -> Estimate:
        """Measure, and look for larger eigenvalues than are known."""
        start = track.start(both=True) if track.vectors else None
        pairs = top_eigenpairs(
            Hessian(step.before),
            k=min(1 if start is not None else 2, len(track.theta)),
            tol=_of_residual(self.tol),
            max_matvecs=self.max_matvecs,
            start=start,
            verify=True,
            seed=self.seed,
        )
        return _kept(step, track, pairs, searched=True)


def _of_residual(tol: float) -> float:
    """The residual with which a value is about as good as a tolerance: errors go with its square.

    A tolerance that is none is left as it is, for the error that says so.
    """
    return math.sqrt(tol) / 3 if 0 < tol < 1 else tol


def _kept(step: Step, track: Track, pairs: EigenPairs, *, searched: bool) -> Estimate:
    """Keep what was measured for the next step."""
    if pairs.values.isfinite().all():
        step.memory[TRACK] = track.measured(pairs, searched=searched)
    return pairs.top
