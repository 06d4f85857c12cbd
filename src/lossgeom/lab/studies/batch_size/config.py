"""The settings of the study."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from lossgeom.lab.studies._network import Network, NetworkSettings
from lossgeom.lab.studies._solution import Recipe
from lossgeom.lab.studies._study import require
from lossgeom.lab.studies._sweep import SGD, Sgd, check_rates, increase

NETWORK = NetworkSettings(widths=(64, 64))
EPOCHS, UPDATES = "epochs", "updates"  # what is equal for all batch sizes


@dataclass(frozen=True)
class Config:
    """Settings of the study; the defaults run in a minute and a half on two cores."""

    lr: tuple[float, ...] = (0.08, 0.15, 0.3)
    """Learning rates, increasing; each with every batch size."""
    batch_size: tuple[int, ...] = (25, 50, 125, 250)
    """Batch sizes, increasing."""
    updates: int = 800
    """Steps of the runs with an equal number of them, up to whole epochs."""
    weight_decay: float = 5e-4
    """Weight decay."""
    radius: float = 0.1
    """Radius of the balls on which the variation of the Jacobian is bracketed."""
    varied: int = 100
    """Examples with such a ball, the first of those to train on. Each costs some thousand gradients
    of it."""
    sgd: Sgd = SGD
    """How long training is where epochs are equal."""
    network: Network = NETWORK
    """Data and model."""

    def __post_init__(self) -> None:
        sizes, most = self.batch_size, self.network.examples
        check_rates(self, 2)
        require(self, increase(sizes), "three or more increasing batch sizes", "batch_size")
        fit = sizes[0] >= 1 and sizes[-1] <= most and 1 <= self.varied <= most
        require(self, fit, f"1 to {most} examples", "batch_size", "varied")
        require(self, self.updates >= 1, "1 or more", "updates")
        require(self, 0 < self.radius < math.inf, "radius > 0", "radius")

    def recipe(self, equal: str, lr: float, batch_size: int) -> Recipe:
        """How a run is trained."""
        recipe = Recipe(
            lr, batch_size, self.sgd.epochs,
            momentum=self.sgd.momentum, weight_decay=self.weight_decay,
        )  # fmt: skip
        if equal == EPOCHS:
            return recipe
        one = replace(recipe, epochs=1).steps(self.network.examples)
        return replace(recipe, epochs=max(1, round(self.updates / one)))


# The main text of the paper gives the model, the data, and the weight decay. Learning rates, batch
# sizes and the momentum are in an appendix that we have not seen: they are ours, as are the runs
# with an equal number of updates, and all of the local variation. Epochs are those of figure 2.
PAPER = Config(
    lr=(0.01, 0.05, 0.1),
    batch_size=(32, 64, 128, 256, 512),
    updates=35_000,
    weight_decay=1e-4,
    varied=10,
    sgd=replace(SGD, epochs=90, measurements=90, measured_on=5_000),
    network=replace(NETWORK, data="cifar10", examples=50_000, model="resnet18", batch_norm=True),
)
