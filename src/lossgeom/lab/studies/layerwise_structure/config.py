"""The settings of the study."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from lossgeom.lab.studies._network import CLASSES, Network, NetworkSettings
from lossgeom.lab.studies._study import require

MLP, CENTRED, BATCH_NORM, LENET5 = NETWORKS = ("mlp", "centred", "batch-norm", "lenet5")
LINEAR = ("fc1", "fc2", "fc3")
LAYERS = {**dict.fromkeys(NETWORKS, LINEAR), LENET5: ("conv1", "conv2", *LINEAR)}

FEW = 5  # the largest numbers of eigenvectors that are few
SETTINGS = NetworkSettings(examples=1000, chunk=1000, widths=(20, 20))


@dataclass(frozen=True)
class Config:
    """Settings of the study; the defaults run in less than two minutes on two cores."""

    lr: float = 0.05
    """Learning rate of SGD."""
    batch_size: int = 50
    """Examples in a batch."""
    steps: int = 1200
    """Steps to train the mlp."""
    lenet5_steps: int = 400
    """Steps to train LeNet5."""
    every: int = 100
    """Steps between measurements of the loss."""
    pairs: int = 20
    """Largest eigenpairs of each layer."""
    measured: int = 500
    """Examples to measure the layers of LeNet5 on; those of the mlp are measured on all."""
    network: Network = SETTINGS
    """Data, and the mlp, with two hidden layers."""

    def __post_init__(self) -> None:
        n, mlp = self.network.examples, self.network.model == "mlp"
        require(self, 0 < self.lr < math.inf, "lr > 0", "lr")
        require(self, 1 <= self.batch_size <= n, f"a batch_size of 1 to {n}", "batch_size")
        for name in ("steps", "lenet5_steps"):
            steps = getattr(self, name)
            whole = 1 <= self.every <= steps and steps % self.every == 0
            require(self, whole, f"{name} a multiple of every", "every", name)
        require(self, self.pairs >= CLASSES, f"pairs >= {CLASSES}", "pairs")
        require(self, 1 <= self.measured <= n, f"measured of 1 to {n}", "measured")
        two = mlp and len(self.network.widths) == 2
        require(self.network, two, "the model mlp with two widths", "model", "widths")
        require(self.network, self.network.ten_classes, "data of ten classes", "data", "classes")

    def network_of(self, name: str) -> NetworkSettings:
        """The data and the model of a network."""
        return replace(self.network, model="lenet5") if name == LENET5 else self.network

    def steps_of(self, name: str) -> int:
        """Steps to train a network."""
        return self.lenet5_steps if name == LENET5 else self.steps


# The learning rate and the networks are the authors': two hidden layers of 200 on MNIST and
# CIFAR-10, and LeNet5. For the second data set add --data cifar10 --examples 50000. Batches
# and epochs are ours.
PAPER = Config(
    lr=0.01, batch_size=100, steps=60_000, lenet5_steps=60_000, every=3_000, measured=5_000,
    network=replace(SETTINGS, data="mnist", examples=60_000, widths=(200, 200)),
)  # fmt: skip
