"""The settings of the study."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from lossgeom.lab.studies._network import Network, NetworkSettings
from lossgeom.lab.studies._solution import Recipe
from lossgeom.lab.studies._study import require
from lossgeom.lab.studies._sweep import increase

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
    momentum: float = 0.9
    """How much of the last steps is kept in a step."""
    epochs: int = 100
    """How often all examples are gone through."""
    measurements: int = 5
    """Measurements along training."""
    network: Network = NETWORK
    """Data and model."""

    def __post_init__(self) -> None:
        require(self, all(0 < lr < math.inf for lr in self.lr), "learning rates > 0", "lr")
        require(self, increase(self.lr), "three or more increasing learning rates", "lr")
        most = self.network.examples
        fit = all(1 <= size <= most for size in self.batch_size)
        require(self, fit, f"batch sizes of 1 to {most} examples", "batch_size")
        require(
            self, min(self.epochs, self.measurements) >= 1, "1 or more", "epochs", "measurements"
        )

    def recipe(self, place: Mapping[str, Any]) -> Recipe:
        """How a run is trained."""
        return Recipe(
            **place, epochs=self.epochs, momentum=self.momentum, weight_decay=self.weight_decay
        )


# The main text of the paper gives the model, the data, and the weight decay. Learning rates, batch
# sizes and the momentum are in an appendix that we have not seen: they are ours. The number of
# epochs is that of figure 2.
PAPER = Config(
    batch_size=(64, 128, 256),
    lr=(0.01, 0.02, 0.05, 0.1, 0.2),
    weight_decay=1e-4,
    epochs=90,
    measurements=90,
    network=replace(NETWORK, data="cifar10", examples=50_000, model="resnet18", batch_norm=True),
)
