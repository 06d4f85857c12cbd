"""The settings of the study."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lossgeom.lab.studies._growth import ConstantRate, Training
from lossgeom.lab.studies._network import Network, NetworkSettings
from lossgeom.lab.studies._study import require
from lossgeom.lab.studies._sweep import increase

NETWORK = NetworkSettings(widths=(64, 64))
TRAINING = ConstantRate(epochs=800)


@dataclass(frozen=True)
class Config:
    """Settings of the study; the defaults run in half a minute on two cores."""

    input_scales: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Factors on all inputs, increasing."""
    training: Training = TRAINING
    """How networks are trained, and how often measured."""
    network: Network = NETWORK
    """Data and model."""

    def __post_init__(self) -> None:
        rise = increase(self.input_scales) and self.input_scales[0] > 0
        require(self, rise, "three or more increasing factors > 0", "input_scales")
        self.training.check(self.network.examples)


# Of appendix C.2 we know only that there is no batch normalisation. VGG11 and CIFAR-10 are those of
# the paper's figure 1, 90 epochs those of its figure 2; all else is ours, the squared error too.
PAPER = Config(
    training=ConstantRate(lr=0.01, batch_size=100, epochs=90, every=4500, measured_on=5_000),
    network=replace(NETWORK, data="cifar10", examples=50_000, model="vgg11"),
)  # fmt: skip
