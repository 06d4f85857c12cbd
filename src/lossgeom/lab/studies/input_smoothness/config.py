"""The settings of the study."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from lossgeom.lab.studies._network import Network, NetworkSettings
from lossgeom.lab.studies._study import require

FEWEST_LEVELS = 3  # of a setting, for a correlation along them

NETWORK = NetworkSettings(examples=200, chunk=2_000, widths=(64, 64))


@dataclass(frozen=True)
class Config:
    """Settings of the study; the defaults run in about a minute on two cores."""

    lr: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4, 0.8)
    """Learning rates, increasing."""
    batch_size: tuple[int, ...] = (4, 10, 40, 200)
    """Batch sizes, increasing; each with every learning rate."""
    interpolation: float = 3e-4
    """Training loss below which a run interpolates, and ends."""
    steps: int = 6_000
    """Steps after which a run ends that does not, and is left out."""
    every: int = 100
    """Steps between measurements of the loss."""
    network: Network = NETWORK
    """Model and data: even and odd digits, or airplanes and automobiles."""

    def __post_init__(self) -> None:
        rates, sizes = self.lr, self.batch_size
        require(self, all(0 < lr < math.inf for lr in rates), "learning rates > 0", "lr")
        require(self, _increase(rates), "three or more increasing learning rates", "lr")
        require(self, _increase(sizes), "three or more increasing batch sizes", "batch_size")
        fit = sizes[0] >= 1 and sizes[-1] <= self.network.examples
        require(self, fit, f"batch sizes of 1 to {self.network.examples} examples", "batch_size")
        require(self, 0 < self.interpolation < math.inf, "interpolation > 0", "interpolation")
        require(self, 1 <= self.every <= self.steps, "1 <= every <= steps", "every", "steps")
        whole = self.steps % self.every == 0
        require(self, whole, "steps a multiple of every", "every", "steps")


def _increase(levels: tuple[float, ...]) -> bool:
    return len(levels) >= FEWEST_LEVELS and list(levels) == sorted(set(levels))


# Of the paper's code are the two classes with 500 examples each, the network, the number of steps
# and the range of batch sizes. It has two outputs with one-hot targets and torch's MSELoss; one
# output with targets 1 and -1, the loss, the learning rates and the rule are ours.
PAPER = Config(
    lr=(0.01, 0.02, 0.05),
    batch_size=(10, 20, 30, 40, 50),
    network=replace(NETWORK, data="cifar10", examples=1000, widths=(500, 500, 500)),
)
