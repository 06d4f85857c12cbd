"""The settings of the study."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lossgeom.lab.studies._growth import ConstantRate, Training
from lossgeom.lab.studies._network import Network, NetworkSettings
from lossgeom.lab.studies._study import require
from lossgeom.lab.studies._sweep import increase

SCALED, SHIFTED, LINEAR = KINDS = ("scaled", "shifted", "linear")
NETWORK = NetworkSettings(widths=(64, 64))
TRAINING = ConstantRate()


@dataclass(frozen=True)
class Config:
    """Settings of the study; the defaults run in a minute on two cores."""

    target_scales: tuple[float, ...] = (0.25, 1.0, 4.0)
    """Factors on all targets, increasing."""
    training: Training = TRAINING
    """How networks are trained, and how often measured."""
    network: Network = NETWORK
    """Data and model."""

    def __post_init__(self) -> None:
        rise = increase(self.target_scales) and self.target_scales[0] > 0
        require(self, rise, "three or more increasing factors > 0", "target_scales")
        self.training.check(self.network.examples)


# The paper scales no targets: its label smoothing brings them closer together. VGG11 and CIFAR-10
# are those of its figure 1, and 90 epochs those of its figure 2; all else is ours.
PAPER = Config(
    training=ConstantRate(lr=0.002, batch_size=100, epochs=90, every=4500, measured_on=5_000),
    network=replace(NETWORK, data="cifar10", examples=50_000, model="vgg11"),
)  # fmt: skip
