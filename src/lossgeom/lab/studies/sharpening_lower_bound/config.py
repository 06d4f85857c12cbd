"""The settings of the study."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from lossgeom.lab.studies._network import Network, NetworkSettings
from lossgeom.lab.studies._study import require

NETWORK = NetworkSettings(widths=(48, 48))


@dataclass(frozen=True)
class Config:
    """Settings of the study; the defaults run in less than two minutes on two cores."""

    label_smoothing: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75)
    """Levels of label smoothing, increasing from 0."""
    points: int = 1000
    """Points of the interval that the theorem is tried on."""
    steepness: float = 4.0
    """How fast the classes change there: the probability of one of them is that of a logit from
    -steepness to steepness."""
    width: int = 16
    """Width of the network on the interval."""
    lr: float = 0.02
    """Learning rate of Adam on the interval."""
    image_lr: float = 0.002
    """And on images."""
    steps: int = 2_000
    """Steps on the interval, and on images."""
    every: int = 100
    """Steps between measurements."""
    measured_on: int = 0
    """Images that everything is measured on, at most: the first of those to train on; 0 for all.
    Jacobian norms cost 10 gradients of all of them, and the bound the distances of all pairs."""
    network: Network = NETWORK
    """Model and data of the images."""

    def __post_init__(self) -> None:
        levels, counts = self.label_smoothing, ("points", "width", "every")
        increasing = list(levels) == sorted(set(levels))
        require(self, levels[:1] == (0,), "a first level of 0", "label_smoothing")
        require(self, increasing and levels[-1] < 1, "increasing levels < 1", "label_smoothing")
        require(self, len(levels) >= 2, "two or more levels", "label_smoothing")
        require(self, all(getattr(self, n) >= 2 for n in counts), "at least 2", *counts)
        require(self, 0 < self.steepness < math.inf, "steepness > 0", "steepness")
        rates = "lr", "image_lr"
        require(self, all(0 < getattr(self, n) < math.inf for n in rates), "rates > 0", *rates)
        whole = self.steps % self.every == 0 < self.steps
        require(self, whole, "steps a multiple of every", "steps", "every")
        require(self, self.measured_on >= 0, "0 or more", "measured_on")


# The paper evaluates no bound. Of its first figure are the images, the model and the levels.
PAPER = Config(
    label_smoothing=(0.0, 0.1, 0.25, 0.5, 0.75),
    points=10_000,
    image_lr=1e-3,
    steps=10_000,
    every=200,
    measured_on=5_000,
    network=replace(NETWORK, data="cifar10", examples=50_000, model="vgg11"),
)
