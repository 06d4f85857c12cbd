"""The settings of the study, and its arms."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lossgeom.lab.studies._network import Network, NetworkSettings
from lossgeom.lab.studies._study import require

HELD_OFF, MOVED_OFF = 0.1, 0.25  # relative errors on a target beyond which a run is left out

FOLDER = "{arm}-seed{seed}"  # of a run
NETWORK = NetworkSettings(examples=300, chunk=2_000, activation="tanh")

# What the curves of the squared Jacobian norm and of sharpness are multiplied by in the end; None
# where that quantity is free.
FREE, CONTROL = "free", "both_held"
ARMS: dict[str, tuple[float | None, float | None]] = {
    FREE: (None, None),
    CONTROL: (1.0, 1.0),
    "jacobian_0.7": (0.7, 1.0),
    "jacobian_0.4": (0.4, 1.0),
    "sharpness_0.7": (1.0, 0.7),
    "sharpness_0.4": (1.0, 0.4),
    "jacobian_0.4_alone": (0.4, None),
    "sharpness_0.4_alone": (None, 0.4),
}


@dataclass(frozen=True)
class Config:
    """Settings of the study; the defaults run in a minute and a half on two cores."""

    lr: float = 0.1
    """Learning rate of gradient descent with momentum."""
    momentum: float = 0.9
    """Its momentum."""
    clip: float = 1.0
    """The largest norm of a gradient; a longer one is shortened to it."""
    strength: float = 0.02
    """Factor of the penalties that hold a quantity on its curve."""
    steps: int = 400
    """Steps of each run; a factor on a curve is reached after half of them."""
    every: int = 40
    """Steps between measurements; those in the last fifth of training are averaged."""
    network: Network = NETWORK
    """Data and model; --label-noise asks the same of labels that are partly drawn at random."""

    def __post_init__(self) -> None:
        positive = all(0 < x < math.inf for x in (self.lr, self.clip, self.strength))
        require(self, positive, "numbers > 0", "lr", "clip", "strength")
        require(self, 0 <= self.momentum < 1, "0 <= momentum < 1", "momentum")
        require(self, 1 <= self.every <= self.steps, "1 <= every <= steps", "every", "steps")
        whole = self.steps % self.every == 0
        require(self, whole, "steps a multiple of every", "every", "steps")

    @property
    def averaged(self) -> int:
        """How many measurements are in the last fifth of training, with both of its ends."""
        return self.steps // 5 // self.every + 1


# No paper has made this experiment: all settings are ours, here with the data and the model of
# paper A, of which there is a part of either.
PAPER = Config(
    lr=0.05,
    steps=2_000,
    every=50,
    network=NetworkSettings(data="cifar10", examples=5_000, model="resnet18", channels=0.25),
)
