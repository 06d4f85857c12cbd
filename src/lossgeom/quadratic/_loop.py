"""The loop that all descents share: steps, records, and runs that end before the others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lossgeom.quadratic.descent import Descent
from lossgeom.quadratic.point import Loss, Point, slope
from lossgeom.quadratic.trajectory import Trajectory


class System(ABC):
    """Runs that are advanced side by side, in place."""

    z: Float[Tensor, "R D"]
    loss: Loss

    @abstractmethod
    def step(self) -> None:
        """Advance all runs."""

    @abstractmethod
    def point(self, rows: Tensor | slice) -> Point:
        """Where some of the runs are."""

    @abstractmethod
    def state(self) -> Mapping[str, Tensor]:
        """What the final state of a trajectory holds."""

    @abstractmethod
    def keep(self, rows: Tensor) -> None:
        """Go on without the others."""


def advance(system: System, descent: Descent) -> Trajectory:
    """Take the steps."""
    log, steps = _Log.of(system, descent), descent.recorded_steps
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


@dataclass(eq=False)
class _Log:
    """Records of all runs of a system, also of those that it goes on without."""

    system: System
    descent: Descent
    going: Int[Tensor, " R"]
    near: Bool[Tensor, " R"]  # at the step before, to a minimum of the loss
    diverged_at: Int[Tensor, " R"]
    converged_at: Int[Tensor, " R"]
    final: dict[str, Tensor]
    recorded: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, system: System, descent: Descent) -> _Log:
        going = torch.arange(len(system.z), device=system.z.device)
        never = torch.full_like(going, -1)
        final = {name: torch.empty_like(value) for name, value in system.state().items()}
        at_rest = torch.ones_like(going, dtype=torch.bool)
        return cls(system, descent, going, at_rest, never, never.clone(), final)

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
