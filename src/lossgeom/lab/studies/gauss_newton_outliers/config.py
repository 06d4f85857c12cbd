"""The settings of the study."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from lossgeom.lab.studies._network import Network, NetworkSettings
from lossgeom.lab.studies._study import require

CLASSES = 10  # of digits and of CIFAR-10
MOST = CLASSES - 1  # the outliers that there should be

GAP = 1.5  # an outlier is at least so many times what lies below
MID_TRAINING = 0.9  # accuracy

FIRST, MIDDLE, LAST = POINTS = ("initialisation", "mid-training", "end")

NETWORK = NetworkSettings()


@dataclass(frozen=True)
class Config:
    """Settings of the study; the defaults run in less than two minutes on two cores."""

    lr: float = 0.5
    """Learning rate of full-batch gradient descent."""
    steps: int = 800
    """Steps to train; shuffled labels need more of them than real ones."""
    every: int = 20
    """Steps between measurements."""
    measured_on: int = 0
    """Examples that eigenvalues are measured on, at most: the first of those to train on; 0 for
    all. The pairs of both matrices cost some 500 gradients of all of them, a density 200."""
    pairs: int = 20
    """Largest eigenpairs among which outliers are looked for."""
    probes: int = 10
    """Random vectors for a spectral density."""
    lanczos_steps: int = 80
    """Lanczos steps for a spectral density."""
    network: Network = NETWORK
    """Data and model."""

    def __post_init__(self) -> None:
        require(self, 0 < self.lr < math.inf, "lr > 0", "lr")
        require(self, 1 <= self.every <= self.steps, "1 <= every <= steps", "every", "steps")
        require(self, self.measured_on >= 0, "0 or more", "measured_on")
        whole = self.steps % self.every == 0
        require(self, whole, "steps a multiple of every", "every", "steps")
        enough = self.pairs >= 2 * MOST
        require(self, enough, f"pairs >= {2 * MOST}, twice C - 1", "pairs")
        require(self, self.probes >= 2, "two probes or more", "probes")
        require(self, self.lanczos_steps >= 1, "lanczos_steps >= 1", "lanczos_steps")
        require(self.network, self.network.ten_classes, "data of ten classes", "data", "classes")


# The main text of the paper gives the data, the model, the method and lr; the rest is ours. The
# bases for so many pairs of so large a model take about 5 GB.
PAPER = Config(
    lr=0.08,
    steps=4000,
    every=100,
    measured_on=5_000,
    probes=2,
    network=replace(NETWORK, data="cifar10", examples=50_000, model="vgg11"),
)
