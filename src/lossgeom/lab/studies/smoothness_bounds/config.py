"""The settings of the study."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from lossgeom.lab.studies._study import require

FEWEST_LEVELS = 3  # of a setting, for a correlation along them


@dataclass(frozen=True)
class Config:
    """Settings of the study; the defaults run in about two minutes on two cores."""

    dimension: int = 1
    """Numbers that describe an input; cells are exact for one, and counted for more."""
    examples: int = 20
    """Examples to train on, where learning rates and batch sizes are compared."""
    lr: tuple[float, ...] = (0.05, 0.1, 0.2)
    """Learning rates, increasing."""
    batch_size: tuple[int, ...] = (1, 4, 20)
    """Batch sizes, increasing; each with every learning rate."""
    sizes: tuple[int, ...] = (20, 40, 80, 160)
    """Numbers of examples, increasing, at the largest learning rate and the smallest batch."""
    interpolation: float = 3e-5
    """Training loss below which a run interpolates, and ends."""
    steps: int = 4_000
    """Steps after which a run ends that does not."""
    widths: tuple[int, ...] = (32, 32)
    """Widths of the hidden layers, whose activation is GELU."""
    scale: float = 4.0
    """What the first layer is multiplied with before training, which makes it sharp."""
    attack: float = 0.05
    """Size of attacks on new inputs."""
    new: int = 500
    """New inputs, on which errors and attacks are measured."""
    epsilon: float = 0.05
    """Probability that balls or counted cells mislead."""

    def __post_init__(self) -> None:
        counts = ("dimension", "examples", "steps", "new")
        require(self, all(getattr(self, each) >= 1 for each in counts), "at least 1", *counts)
        require(self, all(width >= 1 for width in self.widths), "widths of at least 1", "widths")
        positive = ("interpolation", "scale", "attack")
        finite = all(0 < getattr(self, each) < math.inf for each in positive)
        require(self, finite, "positive numbers", *positive)
        require(self, 0 < self.epsilon < 1, "0 < epsilon < 1", "epsilon")
        for name in ("lr", "batch_size", "sizes"):
            levels = getattr(self, name)
            increase = len(levels) >= FEWEST_LEVELS and list(levels) == sorted(set(levels))
            require(self, increase, f"{FEWEST_LEVELS} or more increasing levels", name)
            require(self, levels[0] > 0 and levels[-1] < math.inf, "positive levels", name)
        fit = self.batch_size[-1] <= self.examples and self.batch_size[0] <= self.sizes[0]
        require(self, fit, "no batch of more than all examples", "batch_size", "examples", "sizes")


# Of the paper's code are ten examples of one number, the widths, the batch of two, the steps and
# the learning rates, which are twice those for torch's MSELoss; its function is not known, and its
# activation, ReLU, has a Jacobian that jumps, of which nothing is certified.
PAPER = replace(
    Config(),
    examples=10,
    lr=(0.04, 0.2, 1.0),
    batch_size=(2, 5, 10),
    sizes=(10, 20, 40, 80, 160),
    widths=(20, 20),
    interpolation=1e-6,
    steps=100_000,
)
