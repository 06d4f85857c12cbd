"""The loop of all descents: steps, records, and runs that end before the others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lossgeom.quadratic.descent import Descent, chunks
from lossgeom.quadratic.model import Ensemble, Model
from lossgeom.quadratic.point import Loss, Point, slope
from lossgeom.quadratic.trajectory import Trajectory, joined


class System(ABC):
    """Runs that are advanced side by side, in place."""

    z: Float[Tensor, "R D"]
    loss: Loss

    @abstractmethod
    def step(self) -> None:
        """Advance all runs."""

    @abstractmethod
    def point(self, rows: Tensor | slice) -> Point:
        """The points of some of the runs."""

    @abstractmethod
    def state(self) -> Mapping[str, Tensor]:
        """What a trajectory keeps as its final state."""

    @abstractmethod
    def keep(self, rows: Tensor) -> None:
        """Keep some of the runs, and go on without the others."""


def descended(
    models: Ensemble, descent: Descent, start: Callable[[Model, Descent], System]
) -> Trajectory:
    """Advance all runs of an ensemble, a chunk after the other."""
    with torch.no_grad():
        return joined([_advanced(start(m, descent), descent) for m in chunks(models, descent)])


def _advanced(system: System, descent: Descent) -> Trajectory:
    log, steps = _Log(system, descent), descent.recorded_steps
    log.write(slice(1), log.going, slice(None))
    log.take_out(0, 0)
    row = 1
    for step in range(1, descent.steps + 1):
        if not len(log.going):
            break
        system.step()
        log.take_out(step, row)
        if step == steps[row]:
            log.write(slice(row, row + 1), log.going, slice(None))
            row += 1
    return log.trajectory(steps)


class _Log:
    """Records of all runs of a system, also of those that it goes on without.

    Attributes:
        going: the runs that the system still has.
        near: which of them were near a minimum of the loss at the step before.
    """

    def __init__(self, system: System, descent: Descent) -> None:
        self.system, self.descent = system, descent
        self.going = torch.arange(len(system.z), device=system.z.device)
        self.near = torch.ones_like(self.going, dtype=torch.bool)
        self.diverged_at, self.converged_at = torch.full_like(self.going, -1).repeat(2, 1)
        self.final = {name: torch.empty_like(value) for name, value in system.state().items()}
        self.recorded: dict[str, Tensor] = {}

    def take_out(self, step: int, row: int) -> None:
        """Note which runs have ended at this step, and let the others go on without them."""
        z, descent = self.system.z, self.descent
        # One number for all runs decides nearly always: no run has a larger norm than all together.
        if not descent.tol and torch.linalg.vector_norm(z).item() <= descent.bound:
            return
        diverged = ~(torch.linalg.vector_norm(z, dim=1) <= descent.bound)
        converged = self._converged(z) & ~diverged
        if not bool((diverged | converged).any()):
            return
        self.diverged_at[self.going[diverged]] = step
        self.converged_at[self.going[converged]] = step
        for values in self.recorded.values():
            values[row:, self.going[diverged]] = torch.nan
        self.write(slice(row, None), self.going[converged], converged)
        self._store(diverged | converged)
        left = (~(diverged | converged)).nonzero()[:, 0]
        self.system.keep(left)
        self.going, self.near = self.going[left], self.near[left]

    def _converged(self, z: Float[Tensor, "R D"]) -> Bool[Tensor, " R"]:
        if not self.descent.tol:
            return torch.zeros_like(self.near)
        before, tol = self.near, (1 - self.descent.momentum) * self.descent.tol
        self.near = torch.linalg.vector_norm(slope(self.system.loss, z), dim=1) <= tol
        # With momentum a run can rush through a minimum.
        return self.near & before if self.descent.momentum else self.near

    def _store(self, ended: Bool[Tensor, " R"]) -> None:
        for name, value in self.system.state().items():
            self.final[name][self.going[ended]] = value[ended]

    def write(self, rows: slice, runs: Tensor, which: Tensor | slice) -> None:
        """Record some of the runs that are going on."""
        if not len(runs):
            return
        point = self.system.point(which)
        found = {"loss": self.system.loss(point.z)}
        found |= {name: observe(point) for name, observe in self.descent.observe.items()}
        for name, value in found.items():
            value = value if value.is_floating_point() else value.to(point.z.dtype)  # for NaN
            if name not in self.recorded:
                size = len(self.descent.recorded_steps), len(self.diverged_at)
                self.recorded[name] = value.new_full((*size, *value.shape[1:]), torch.nan)
            self.recorded[name][rows, runs] = value

    def trajectory(self, steps: list[int]) -> Trajectory:
        self._store(torch.ones_like(self.going, dtype=torch.bool))
        return Trajectory(
            torch.tensor(steps), self.recorded, self.diverged_at, self.converged_at, self.final
        )
