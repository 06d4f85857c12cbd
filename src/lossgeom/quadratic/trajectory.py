"""Trajectories of descents: what was recorded on the way, and where they ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from lossgeom.messages.reprs import short
from lossgeom.quadratic.point import Point

Observable = Callable[[Point], Tensor]


def largest_ntk_eigenvalues(point: Point) -> Tensor:
    """Observe the largest eigenvalues of J J^T, as descents do by default."""
    return point.largest_ntk_eigenvalues()


def residuals(point: Point) -> Tensor:
    """Observe the residuals themselves, (R, D)."""
    return point.z


@dataclass(frozen=True, eq=False)
class Trajectory:
    """What was recorded of R runs.

    A run that has converged stays where it is, and what is recorded of it does not change any
    more. Of a run that has diverged NaN is recorded from that step on.

    Attributes:
        steps: (S,) at which something was recorded; times, for gradient flow.
        recorded: (S, R, ...) for each name, ``"loss"`` among them.
        diverged_at: (R,) the step whose residuals were the first to be non-finite or above the
            bound; -1 for none.
        converged_at: (R,) the first step at which dloss/dz was within the tolerance, see
            ``Descent``; -1 for none.
        final: the state at the last step of each run, or where it diverged: ``"z"`` (R, D), with
            ``"J"`` (R, D, P) or ``"theta"`` (R, P).
    """

    steps: Shaped[Tensor, " S"]
    recorded: Mapping[str, Tensor]
    diverged_at: Int[Tensor, " R"]
    converged_at: Int[Tensor, " R"]
    final: Mapping[str, Tensor]

    __repr__ = short

    @property
    def losses(self) -> Shaped[Tensor, "S R"]:
        """The loss of each run, a sum over outputs."""
        return self.recorded["loss"]

    @property
    def ntk(self) -> Shaped[Tensor, "S R"]:
        """The largest eigenvalues of J J^T, where they were observed."""
        return self.recorded["ntk"]

    @property
    def diverged(self) -> Bool[Tensor, " R"]:
        """Which runs."""
        return self.diverged_at >= 0

    @property
    def converged(self) -> Bool[Tensor, " R"]:
        """Which runs."""
        return self.converged_at >= 0


def joined(parts: Sequence[Trajectory]) -> Trajectory:
    """Join the runs of several trajectories with the same steps, one after the other."""
    first = parts[0]
    return Trajectory(
        first.steps,
        {name: torch.cat([part.recorded[name] for part in parts], 1) for name in first.recorded},
        torch.cat([part.diverged_at for part in parts]),
        torch.cat([part.converged_at for part in parts]),
        {name: torch.cat([part.final[name] for part in parts]) for name in first.final},
    )
