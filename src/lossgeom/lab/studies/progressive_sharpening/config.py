"""The settings of the study."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from lossgeom.lab.studies._network import MeasuredOn, Network, NetworkSettings
from lossgeom.lab.studies._study import require

NETWORK = NetworkSettings(widths=(48, 48, 48), activation="gelu")


@dataclass(frozen=True)
class Config:
    """Settings of the study; the defaults run in less than two minutes on two cores."""

    lr: float = 1.0
    """Learning rate at which runs reach 2 / lr."""
    small_lr: float = 0.25
    """Learning rate at which they do not."""
    label_smoothing: tuple[float, ...] = (0.1, 0.3, 0.5, 0.65, 0.8)
    """Levels of label smoothing, increasing."""
    steps: int = 280
    """Steps at lr; at small_lr as many more as it is smaller."""
    every: int = 8
    """Steps between measurements at lr; at small_lr as many more."""
    measured_on: MeasuredOn = 0
    network: Network = NETWORK
    """Data and model."""

    def __post_init__(self) -> None:
        levels = self.label_smoothing
        require(self, 0 < self.small_lr < self.lr < math.inf, "0 < small_lr < lr", "small_lr", "lr")
        require(self, all(0 <= a < 1 for a in levels), "levels in [0, 1)", "label_smoothing")
        require(self, len(levels) >= 3, "three or more levels", "label_smoothing")
        increasing = list(levels) == sorted(set(levels))
        require(self, increasing, "increasing levels", "label_smoothing")
        require(self, 1 <= self.every <= self.steps, "1 <= every <= steps", "every", "steps")
        require(self, self.measured_on >= 0, "0 or more", "measured_on")

    def rhythm(self, lr: float) -> tuple[int, int]:
        """Steps, and steps between measurements, for the same training time lr * step."""
        slower = self.lr / lr
        return round(self.steps * slower), max(1, round(self.every * slower))


# The main text of the paper gives the data, the model, the method and lr. The number of steps, the
# levels of smoothing, the small learning rate and the absence of batch normalisation are ours.
PAPER = Config(
    lr=0.08,
    small_lr=0.02,
    label_smoothing=(0.0, 0.1, 0.25, 0.5, 0.75),
    steps=1000,
    every=20,
    measured_on=5_000,
    network=replace(NETWORK, data="cifar10", examples=50_000, model="vgg11"),
)
