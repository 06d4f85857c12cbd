"""The settings of the study."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lossgeom.lab.studies._study import require

RISE = 1.2  # final by initial curvature, from which it has risen

SIZES = ("small_a", "edge_a", "large_a")  # the settings that are places in the phase diagram


@dataclass(frozen=True)
class Config:
    """Settings of the study; the defaults run in about a minute on two cores."""

    outputs: int = 20
    """Outputs D."""
    parameters: int = 40
    """Parameters P."""
    small_a: float = 0.05
    """Size of residuals, a = sigma_z sqrt(2 D P), that leaves curvature where it is."""
    edge_a: float = 0.5
    """Size that takes runs to the edge of stability."""
    large_a: float = 2.0
    """Size that makes them diverge."""
    curvature: float = 1.5
    """Initial curvature lambda_0 at which these sizes are compared."""
    runs_at_points: int = 40
    """Runs for each of these sizes."""
    models: int = 8000
    """Models to average the acceleration over; it has heavy tails."""
    a: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.2, 2.0)
    """Sizes of residuals in the phase diagram, increasing."""
    initial_curvature: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
    """Initial curvatures in the phase diagram, increasing."""
    runs: int = 12
    """Runs for each cell of the phase diagram."""
    steps: int = 10_000
    """Steps, at most."""

    def __post_init__(self) -> None:
        counts = ("outputs", "parameters", "runs_at_points", "models", "runs", "steps")
        sizes = [getattr(self, name) for name in SIZES]
        require(self, all(getattr(self, name) >= 1 for name in counts), "at least 1", *counts)
        require(self, _increase(sizes), "0 < small_a < edge_a < large_a", *SIZES)
        require(self, 0 < self.curvature < 2, "curvature in (0, 2)", "curvature")
        require(self, self.outputs >= 2, "two outputs or more", "outputs")
        for name in ("a", "initial_curvature"):
            require(self, _increase(getattr(self, name)), "increasing positive values", name)


def _increase(values: Sequence[float]) -> bool:
    positive = all(0 < value < math.inf for value in values)
    return bool(values) and positive and list(values) == sorted(set(values))


# D and P are meant to be the paper's; the places in the phase diagram and the numbers of runs are
# ours. It takes about half an hour on two cores.
PAPER = Config(outputs=60, parameters=120, edge_a=0.45, runs=6)
