"""The settings of the study."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from lossgeom.lab.studies._network import Network, NetworkSettings
from lossgeom.lab.studies._solution import Recipe
from lossgeom.lab.studies._study import require
from lossgeom.lab.studies._sweep import SGD, Sgd, check_rates, increase

NETWORK = NetworkSettings(widths=(64, 64))


@dataclass(frozen=True)
class Config:
    """Settings of the study; the defaults run in about a minute on two cores."""

    lr: tuple[float, ...] = (0.05, 0.1)
    """Learning rates; each with every weight decay."""
    weight_decay: tuple[float, ...] = (0.0, 1e-4, 5e-4, 1e-3, 3e-3)
    """Weight decays, increasing from 0."""
    batch_size: int = 50
    """Examples in a batch."""
    mediated: int = 500
    """Examples on which the mediators are measured, the first of those to train on. Those of a
    layer cost some 30 gradients of them; a batch normalisation counts as a layer, too."""
    sgd: Sgd = SGD
    """How long training is."""
    network: Network = NETWORK
    """Data and model."""

    def __post_init__(self) -> None:
        decays, most = self.weight_decay, self.network.examples
        check_rates(self, 1)
        rise = increase(decays) and decays[0] == 0 and math.isfinite(decays[-1])
        require(self, rise, "three or more weight decays, increasing from 0", "weight_decay")
        few = 1 <= self.batch_size <= most and 1 <= self.mediated <= most
        require(self, few, f"1 to {most} examples", "batch_size", "mediated")

    def recipe(self, lr: float, weight_decay: float) -> Recipe:
        """How a run is trained."""
        return Recipe(
            lr, self.batch_size, self.sgd.epochs,
            momentum=self.sgd.momentum, weight_decay=weight_decay,
        )  # fmt: skip


# The main text of the paper gives the model and the number of epochs. The data are those of its
# other figures; learning rates, weight decays, batch size and momentum are in an appendix that we
# have not seen: they are ours. So is how few examples the mediators are measured on.
PAPER = Config(
    lr=(0.01, 0.05, 0.1),
    weight_decay=(0.0, 1e-5, 1e-4, 5e-4, 1e-3),
    batch_size=128,
    mediated=100,
    sgd=replace(SGD, epochs=90, measurements=90, measured_on=5_000),
    network=replace(NETWORK, data="cifar10", examples=50_000, model="resnet18", batch_norm=True),
)
