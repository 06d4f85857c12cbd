"""The settings of the study."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from lossgeom.lab.regularizers import crop_and_flip, jacobian_norm, mixup
from lossgeom.lab.studies._network import POINTS, MeasuredOn, Network, NetworkSettings
from lossgeom.lab.studies._solution import Recipe
from lossgeom.lab.studies._study import require
from lossgeom.lab.studies._sweep import increase
from lossgeom.lab.training import Regularizer, sam
from lossgeom.lab.training.schedules import step_decay

NONE, BATCH, DECAY = "none", "batch_size", "weight_decay"
REGULARISERS = (
    "label_smoothing", "augmentation", "mixup", "sam", DECAY, "jacobian_penalty"
)  # fmt: skip
TECHNIQUES = (NONE, *REGULARISERS, BATCH)
POSITIVE = "lr", "mixup", "sam", BATCH
NETWORK = NetworkSettings(widths=(64, 64))


@dataclass(frozen=True)
class Config:
    """Settings of the study; the defaults run in two minutes and a half on two cores."""

    lr: tuple[float, ...] = (0.05, 0.2)
    """Initial learning rates, increasing."""
    label_smoothing: tuple[float, ...] = (0.1, 0.3, 0.6)
    """Levels of label smoothing, increasing as all strengths, each at every learning rate."""
    augmentation: tuple[float, ...] = (0.1, 0.3, 1.0)
    """Shares of the images that are shifted."""
    mixup: tuple[float, ...] = (0.1, 0.4, 1.6)
    """Alphas of mixup."""
    sam: tuple[float, ...] = (0.05, 0.2)
    """Radii of sharpness-aware minimisation."""
    weight_decay: tuple[float, ...] = (0.0, 0.001, 0.003)
    """Weight decays in the place of that of all other runs."""
    jacobian_penalty: tuple[float, ...] = (0.00003, 0.001)
    """Factors of the squared Jacobian norm."""
    batch_size: tuple[int, ...] = (20, 125)
    """Batch sizes in the place of that of all other runs."""
    common_decay: float = 0.0005
    """Weight decay of all other runs."""
    common_batch: int = 50
    """Batch size of all other runs."""
    epochs: int = 100
    """How often all examples are gone through."""
    measured_on: MeasuredOn = 0
    decay: float = 0.1
    """Factor on the learning rate in the second half of training."""
    shift: int = 1
    """Largest shift of an image, in pixels."""
    flip: bool = False
    """Whether half of the images that are shifted are reflected, too."""
    network: Network = NETWORK
    """Data and model."""

    def __post_init__(self) -> None:
        most = {"label_smoothing": 0.99, "augmentation": 1.0, BATCH: self.network.examples}
        for name in ("lr", *TECHNIQUES[1:]):
            levels, high = getattr(self, name), most.get(name, 1e9)
            require(self, increase(levels, 1), "one or more increasing levels", name)
            inside = levels[0] >= 0 and levels[-1] <= high
            require(self, inside, f"levels from 0 to {high:g}", name)
            require(self, levels[0] > 0 or name not in POSITIVE, "levels > 0", name)
        require(self, self.common_decay >= 0, "a weight decay >= 0", "common_decay")
        fits = 1 <= self.common_batch <= self.network.examples
        require(self, fits, f"1 to {self.network.examples} examples", "common_batch")
        require(self, 0 < self.decay <= 1, "0 < decay <= 1", "decay")
        require(self, self.epochs >= 1, "at least 1", "epochs")
        require(self, self.measured_on >= 0, "0 or more", "measured_on")
        images = self.network.data not in POINTS
        require(self.network, images, "images, which are augmented", "data")

    def strengths(self, technique: str) -> tuple[float, ...]:
        """The strengths of a technique; 0 where there is none."""
        levels: tuple[float, ...] = (0.0,) if technique == NONE else getattr(self, technique)
        return levels

    def recipe(self, lr: float, technique: str, strength: float) -> Recipe:
        """How a run is trained."""
        changes: dict[str, Any] = {}
        if technique in ("label_smoothing", DECAY):
            changes = {technique: strength}
        elif technique == BATCH:
            changes = {technique: int(strength)}
        elif technique == "sam":
            changes = {"ascent": sam(strength)}
        elif technique != NONE:
            changes = {"regularizers": (self._regularizer(technique, strength),)}
        plain = Recipe(lr, self.common_batch, self.epochs, weight_decay=self.common_decay)
        recipe = replace(plain, **changes)
        half = -(-recipe.steps(self.network.examples) // 2)
        return replace(recipe, schedule=step_decay(half, self.decay))

    def _regularizer(self, technique: str, strength: float) -> Regularizer:
        if technique == "augmentation":
            return crop_and_flip(self.shift, strength, flip=self.flip)
        return mixup(strength) if technique == "mixup" else jacobian_norm(strength, probes=1)


# The main text of the paper gives the data, the model, batch normalisation and the weight decay of
# all runs, and names the first four techniques; a review counts six. Learning rates, strengths,
# batch sizes, epochs and the decay of the learning rate are ours.
PAPER = Config(
    lr=(0.01, 0.03, 0.1),
    label_smoothing=(0.1, 0.25, 0.5, 0.75),
    augmentation=(0.25, 0.5, 0.75, 1.0),
    mixup=(0.1, 0.2, 0.4, 0.8),
    sam=(0.05, 0.1, 0.15, 0.2),
    weight_decay=(0.0, 0.0001, 0.001),
    jacobian_penalty=(0.0001, 0.001, 0.01),
    batch_size=(32, 512),
    common_batch=128,
    epochs=90,
    measured_on=5_000,
    shift=4,
    flip=True,
    network=replace(NETWORK, data="cifar10", examples=50_000, model="resnet18", batch_norm=True),
)
