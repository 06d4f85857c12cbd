"""The settings of the study."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from lossgeom.lab.studies._network import MeasuredOn, Network, NetworkSettings
from lossgeom.lab.studies._solution import Recipe
from lossgeom.lab.studies._study import require
from lossgeom.lab.training.schedules import cosine, step_decay

OBJECTIVES = WITH, WITHOUT, SQUARED = "weight_decay", "no_weight_decay", "squared_error"
CONSTANT = SMALL, LARGE = "small", "large"
DECAYED = STEP, COSINE = "step", "cosine"
MOMENTUM = 0.9
NETWORK = NetworkSettings(widths=(64, 64))


@dataclass(frozen=True)
class Config:
    """Settings of the study; the defaults run in less than two minutes on two cores."""

    lr: float = 0.2
    """Large learning rate."""
    decay: float = 0.1
    """The small learning rate, and that at the end of those that decay, over the large one."""
    weight_decay: float = 0.0005
    """Weight decay of the runs with one; the others have none, or the squared error and none."""
    batch_size: int = 50
    """Batch size."""
    epochs: int = 100
    """How often all examples are gone through; a half of them before a step of the rate."""
    measured: int = 10
    """How often it is measured along training."""
    measured_on: MeasuredOn = 0
    parameter_jacobians: int = 0
    """Examples that norms of Jacobians in the parameters are measured on, at most: the first; 0 for
    all. But for an mlp, examples are taken one by one, some three seconds for each of ResNet18."""
    network: Network = NETWORK
    """Data and model."""

    def __post_init__(self) -> None:
        require(self, 0 < self.lr < math.inf, "lr > 0", "lr")
        require(self, 0 < self.decay < 1, "0 < decay < 1", "decay")
        require(self, 0 < self.weight_decay < math.inf, "weight_decay > 0", "weight_decay")
        few = ("measured_on", "parameter_jacobians")
        require(self, all(getattr(self, each) >= 0 for each in few), "0 or more", *few)
        counts = ("epochs", "measured", "batch_size")
        require(self, all(getattr(self, each) >= 1 for each in counts), "at least 1", *counts)
        fits = self.batch_size <= self.network.examples
        require(self, fits, f"at most {self.network.examples} examples", "batch_size")

    @property
    def steps(self) -> int:
        """How many a run has."""
        return self.epochs * -(-self.network.examples // self.batch_size)

    @property
    def every(self) -> int:
        """Steps between measurements."""
        return max(1, self.steps // self.measured)

    def recipe(self, objective: str, schedule: str) -> Recipe:
        """How a run is trained."""
        lr = self.lr * (self.decay if schedule == SMALL else 1)
        factor = {
            STEP: step_decay(-(-self.steps // 2), self.decay),
            COSINE: cosine(self.steps, self.decay),
        }.get(schedule)
        weight_decay = self.weight_decay if objective == WITH else 0.0
        return Recipe(
            lr, self.batch_size, self.epochs, momentum=MOMENTUM, weight_decay=weight_decay,
            schedule=factor,
        )  # fmt: skip


# The main text of the paper gives the data, the model, batch normalisation and the weight decay;
# learning rates, their decay and the number of epochs are ours.
PAPER = Config(
    lr=0.1,
    batch_size=128,
    epochs=90,
    measured=30,
    measured_on=5_000,
    parameter_jacobians=100,
    network=replace(NETWORK, data="cifar10", examples=50_000, model="resnet18", batch_norm=True),
)
