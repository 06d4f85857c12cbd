"""The settings of the study."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lossgeom.lab.studies._growth import check_batches
from lossgeom.lab.studies._network import Network, NetworkSettings
from lossgeom.lab.studies._solution import Recipe
from lossgeom.lab.studies._study import require
from lossgeom.lab.studies._sweep import increase

NETWORK = NetworkSettings(widths=(64, 64))


@dataclass(frozen=True)
class Config:
    """Settings of the study; the defaults run in half a minute on two cores."""

    input_scales: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Factors on all inputs, increasing."""
    lr: float = 0.02
    """Learning rate, far below the edge of stability; the momentum is 0.9."""
    batch_size: int = 500
    """Examples in a batch; all by default."""
    epochs: int = 800
    """How often all examples are gone through."""
    every: int = 50
    """Steps between measurements along training."""
    network: Network = NETWORK
    """Data and model."""

    def __post_init__(self) -> None:
        rise = increase(self.input_scales) and self.input_scales[0] > 0
        require(self, rise, "three or more increasing factors > 0", "input_scales")
        check_batches(self)

    @property
    def recipe(self) -> Recipe:
        """How networks are trained."""
        return Recipe(self.lr, self.batch_size, self.epochs)

    @property
    def steps(self) -> int:
        """How many."""
        return self.recipe.steps(self.network.examples)


# Of appendix C.2 we know only that there is no batch normalisation. VGG11 and CIFAR-10 are those of
# the paper's figure 1, 90 epochs those of its figure 2; all else is ours, the squared error too.
PAPER = Config(
    lr=0.01, batch_size=100, epochs=90, every=4500,
    network=replace(NETWORK, data="cifar10", examples=50_000, model="vgg11"),
)  # fmt: skip
