"""The settings of the study."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from lossgeom.lab.studies._network import Network, NetworkSettings
from lossgeom.lab.studies._study import require

NETWORK = NetworkSettings(examples=1000, chunk=1000, widths=(20,))


@dataclass(frozen=True)
class Config:
    """Settings of the study; the defaults run in a minute on two cores."""

    narrow: tuple[int, ...] = (6, 8)
    """Widths m of networks with one hidden layer of leaky ReLUs, increasing."""
    models: int = 4
    """Models of each kind that a seed trains from independent initialisations, on the same data."""
    lr: float = 0.1
    """Learning rate of SGD."""
    batch_size: int = 50
    """Examples in a batch."""
    epochs: int = 60
    """Times that training goes through all examples."""
    pairs: int = 40
    """Largest eigenpairs of the network that is not narrow; of a narrow one, 2 m."""
    network: Network = NETWORK
    """Data, and the network that is not narrow."""

    def __post_init__(self) -> None:
        positive = min(self.batch_size, self.epochs) >= 1 and 0 < self.lr < math.inf
        given, rising = "lr, batch_size and epochs above 0", tuple(sorted({*self.narrow}))
        wide = self.narrow == rising and min(self.narrow, default=0) >= 2
        require(self, wide, "increasing widths from 2", "narrow")
        require(self, self.models >= 2, "two models or more", "models")
        require(self, positive, given, "lr", "batch_size", "epochs")
        require(self, self.pairs >= 2, "two pairs or more", "pairs")
        require(self.network, self.network.model == "mlp", "the model mlp", "model")
        require(self.network, self.network.ten_classes, "data of ten classes", "data", "classes")


# The paper's data, widths and learning rate; the narrow networks, which it has not, are ours. Its
# networks on CIFAR-10 have as many layers of 200, or one of 600, then with --widths 600: for these
# add --data cifar10 --examples 50000.
PAPER = Config(
    lr=0.01,
    batch_size=100,
    network=replace(NETWORK, data="mnist", examples=60_000, chunk=5000, widths=(200, 200)),
)
