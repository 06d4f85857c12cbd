"""The settings of the study."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from lossgeom.lab.studies._network import MeasuredOn, Network, NetworkSettings
from lossgeom.lab.studies._study import require

# Whether a run has batch normalisation, and whether its learning rate is one that reaches 2 / lr.
KINDS = {
    "plain": (False, False),
    "plain_at_edge": (False, True),
    "batch_norm": (True, False),
    "batch_norm_at_edge": (True, True),
}

NETWORK = NetworkSettings(examples=300, widths=(48, 48, 48), activation="tanh")


@dataclass(frozen=True)
class Config:
    """Settings of the study; the defaults run in a minute and a half on two cores."""

    small_lr: float = 0.1
    """Learning rate at which no run reaches 2 / lr."""
    lr: float = 2.0
    """Learning rate at which runs without batch normalisation reach it."""
    lr_batch_norm: float = 0.3
    """Learning rate at which runs with batch normalisation do."""
    label_smoothing: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7)
    """Levels of label smoothing, increasing."""
    steps: int = 240
    """Steps of gradient descent."""
    every: int = 16
    """Steps between measurements."""
    measured_on: MeasuredOn = 0
    network: Network = NETWORK
    """Data and model, which is trained with batch normalisation and without."""

    def __post_init__(self) -> None:
        rates, levels = ("small_lr", "lr", "lr_batch_norm"), self.label_smoothing
        positive = all(0 < getattr(self, name) < math.inf for name in rates)
        require(self, positive, "learning rates > 0", *rates)
        require(self, all(0 <= a < 1 for a in levels), "levels in [0, 1)", "label_smoothing")
        increasing = len(levels) >= 3 and list(levels) == sorted(set(levels))
        require(self, increasing, "three or more increasing levels", "label_smoothing")
        require(self, 1 <= self.every <= self.steps, "1 <= every <= steps", "every", "steps")
        require(self, self.measured_on >= 0, "0 or more", "measured_on")
        require(self.network, self.network.model != "lenet5", "a model that may have it", "model")

    def rate(self, kind: str) -> float:
        """The learning rate of a kind of run."""
        batch_norm, at_edge = KINDS[kind]
        large = self.lr_batch_norm if batch_norm else self.lr
        return large if at_edge else self.small_lr

    @property
    def early(self) -> int:
        """How many measurements are in the first half of training."""
        return (self.steps // self.every + 1) // 2


# Data, model and method are those of the paper's figure 1, and so is lr. The other learning rates,
# levels, steps and the network without batch normalisation are ours.
PAPER = Config(
    small_lr=0.02,
    lr=0.08,
    lr_batch_norm=0.08,
    label_smoothing=(0.0, 0.1, 0.25, 0.5, 0.75),
    steps=1000,
    every=20,
    measured_on=5_000,
    network=replace(NETWORK, data="cifar10", examples=50_000, model="vgg11", chunk=500),
)
