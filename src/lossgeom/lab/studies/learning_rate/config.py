"""The settings of the study."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lossgeom.lab.studies._network import Network, NetworkSettings
from lossgeom.lab.studies._solution import Recipe
from lossgeom.lab.studies._study import require
from lossgeom.lab.studies._sweep import SGD, Sgd, check_rates

NETWORK = NetworkSettings(widths=(64, 64))


@dataclass(frozen=True)
class Config:
    """Settings of the study; the defaults run in about a minute on two cores."""

    batch_size: tuple[int, ...] = (25, 50)
    """Batch sizes; each with every learning rate."""
    lr: tuple[float, ...] = (0.03, 0.05, 0.1, 0.17, 0.3)
    """Learning rates, increasing."""
    weight_decay: float = 5e-4
    """Weight decay."""
    sgd: Sgd = SGD
    """How long training is."""
    network: Network = NETWORK
    """Data and model."""

    def __post_init__(self) -> None:
        most = self.network.examples
        check_rates(self, 3)
        fit = all(1 <= size <= most for size in self.batch_size)
        require(self, fit, f"batch sizes of 1 to {most} examples", "batch_size")

    def recipe(self, batch_size: int, lr: float) -> Recipe:
        """How a run is trained."""
        return Recipe(
            lr, batch_size, self.sgd.epochs,
            momentum=self.sgd.momentum, weight_decay=self.weight_decay,
        )  # fmt: skip


# The main text of the paper gives the model, the data, and the weight decay. Learning rates, batch
# sizes and the momentum are in an appendix that we have not seen: they are ours. The number of
# epochs is that of figure 2.
PAPER = Config(
    batch_size=(64, 128, 256),
    lr=(0.01, 0.02, 0.05, 0.1, 0.2),
    weight_decay=1e-4,
    sgd=replace(SGD, epochs=90, measurements=90, measured_on=5_000),
    network=replace(NETWORK, data="cifar10", examples=50_000, model="resnet18", batch_norm=True),
)
