"""The settings of the study."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lossgeom.lab.studies._growth import ConstantRate, Training
from lossgeom.lab.studies._network import Network, NetworkSettings
from lossgeom.lab.studies._solution import Recipe
from lossgeom.lab.studies._study import require
from lossgeom.lab.studies._sweep import increase

NETWORK = NetworkSettings(examples=300)
TRAINING = ConstantRate(batch_size=300, every=100)
STANDARD, NTK, LINEARISED, FEATURES = KINDS = (
    "standard", "ntk", "linearised", "features",
)  # fmt: skip


@dataclass(frozen=True)
class Config:
    """Settings of the study; the defaults run in a minute and a half on two cores."""

    width: tuple[int, ...] = (16, 64, 256)
    """Widths of all hidden layers, increasing."""
    ntk_lr: float = 0.2
    """Learning rate in NTK parametrisation, whose curvature is smaller."""
    training: Training = TRAINING
    """How networks are trained, and how often measured."""
    network: Network = NETWORK
    """Data, and an mlp with as many hidden layers, whatever their widths are here."""

    def __post_init__(self) -> None:
        rise, network = increase(self.width) and self.width[0] >= 1, self.network
        require(self, rise, "three or more increasing widths of at least 1", "width")
        fits = (network.model, network.parametrization) == ("mlp", "standard") and network.widths
        expected = (
            "an mlp with hidden layers, and parametrization standard, beside which ntk is run"
        )
        require(network, bool(fits), expected, "model", "widths", "parametrization")
        self.training.check(network.examples)

    def recipe(self, kind: str) -> Recipe:
        """How a network is trained."""
        recipe = self.training.recipe
        return replace(recipe, lr=self.ntk_lr) if kind == NTK else recipe


# The main text of the paper speaks of width without an experiment; all but CIFAR-10 is ours.
PAPER = Config(
    width=(64, 256, 1024), ntk_lr=0.05,
    training=ConstantRate(lr=0.001, batch_size=100, epochs=90, every=450),
    network=replace(NETWORK, data="cifar10", examples=5000),
)  # fmt: skip
