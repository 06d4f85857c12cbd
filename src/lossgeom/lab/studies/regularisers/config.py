"""The settings of the study."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from lossgeom.lab.regularizers import crop_and_flip, jacobian_norm, mixup
from lossgeom.lab.studies._network import POINTS, Network, NetworkSettings
from lossgeom.lab.studies._solution import Recipe
from lossgeom.lab.studies._study import require
from lossgeom.lab.training import sam
from lossgeom.lab.training.schedules import step_decay

NONE, BATCH_SIZE, WEIGHT_DECAY = "none", "batch_size", "weight_decay"
REGULARISERS = (
    "label_smoothing", "augmentation", "mixup", "sam", WEIGHT_DECAY, "jacobian_penalty"
)  # fmt: skip
TECHNIQUES = (NONE, *REGULARISERS, BATCH_SIZE)
POSITIVE = "lr", "mixup", "sam", BATCH_SIZE
NETWORK = NetworkSettings(widths=(64, 64))


@dataclass(frozen=True)
class Config:
    """Settings of the study; the defaults run in less than four minutes on two cores."""

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
    decay: float = 0.1
    """Factor on the learning rate in the second half of training."""
    shift: int = 1
    """Largest shift of an image, in pixels."""
    flip: bool = False
    """Whether half of the images that are shifted are reflected, too."""
    network: Network = NETWORK
    """Data and model."""

    def __post_init__(self) -> None:
        most = {"label_smoothing": 0.99, "augmentation": 1.0, BATCH_SIZE: self.network.examples}
        for name in ("lr", *TECHNIQUES[1:]):
            levels, high = getattr(self, name), most.get(name, math.inf)
            increasing = len(levels) > 0 and list(levels) == sorted(set(levels))
            require(self, increasing, "one or more increasing levels", name)
            above = levels[0] > 0 if name in POSITIVE else levels[0] >= 0
            said = f"{'more than' if name in POSITIVE else 'at least'} 0, and at most {high:g}"
            require(self, above and levels[-1] <= high and levels[-1] < math.inf, said, name)
        require(self, self.common_decay >= 0, "a weight decay >= 0", "common_decay")
        fits = 1 <= self.common_batch <= self.network.examples
        require(self, fits, f"1 to {self.network.examples} examples", "common_batch")
        require(self, 0 < self.decay <= 1, "0 < decay <= 1", "decay")
        require(self, self.epochs >= 1, "at least 1", "epochs")
        images = self.network.data not in POINTS
        require(self.network, images, "images, which are augmented", "data")

    @property
    def grid(self) -> Mapping[str, tuple[Any, ...]]:
        """What tells the runs of a seed apart."""
        every = sorted({float(s) for name in TECHNIQUES for s in self.strengths(name)})
        return {"lr": self.lr, "technique": TECHNIQUES, "strength": tuple(every)}

    def strengths(self, technique: str) -> tuple[float, ...]:
        """Of a technique; 0 for none."""
        levels: tuple[float, ...] = (0.0,) if technique == NONE else getattr(self, technique)
        return levels

    def recipe(self, lr: float, technique: str, strength: float) -> Recipe:
        """How a run is trained."""
        changes: dict[str, Any] = {}
        match technique:
            case "label_smoothing" | "weight_decay":
                changes = {technique: strength}
            case "batch_size":
                changes = {technique: int(strength)}
            case "sam":
                changes = {"ascent": sam(strength)}
            case "augmentation":
                augment = crop_and_flip(self.shift, strength, flip=self.flip)
                changes = {"regularizers": (augment,)}
            case "mixup":
                changes = {"regularizers": (mixup(strength),)}
            case "jacobian_penalty":
                changes = {"regularizers": (jacobian_norm(strength, probes=1),)}
        plain = Recipe(lr, self.common_batch, self.epochs, weight_decay=self.common_decay)
        recipe = replace(plain, **changes)
        half = -(-recipe.steps(self.network.examples) // 2)
        return replace(recipe, schedule=step_decay(half, self.decay))


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
    shift=4,
    flip=True,
    network=replace(NETWORK, data="cifar10", examples=50_000, model="resnet18", batch_norm=True),
)
