"""The settings of the study."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from lossgeom.lab.studies._study import require

MODELS = ("network", "linear", "quadratic")


@dataclass(frozen=True)
class Config:
    """Settings of the study; the defaults run in less than two minutes on two cores."""

    lr: float = 0.7
    """Learning rate at which the edge is reached."""
    small_lr: float = 0.3
    """Learning rate at which it is not."""
    steps: int = 400
    """Steps to train, at either learning rate."""
    start: int = 1
    """Step at which the models are expanded."""
    every: int = 5
    """Steps between measurements."""
    data: Literal["digits", "mnist", "fashion_mnist", "cifar10", "cifar100"] = "digits"
    """Data set."""
    folder: str = ""
    """The folder with its files; by default one in data/, such as data/cifar-10-batches-bin."""
    classes: tuple[int, int] = (3, 8)
    """Two classes, whose targets are -1 and 1."""
    examples: int = 80
    """Examples to train on."""
    widths: tuple[int, ...] = (24, 24)
    """Widths of the hidden layers."""
    activation: Literal["tanh", "relu", "gelu", "elu"] = "tanh"
    """Activation between the layers."""

    def __post_init__(self) -> None:
        first, second = self.classes
        require(self, 0 < self.small_lr < self.lr < math.inf, "0 < small_lr < lr", "small_lr", "lr")
        require(self, 0 <= self.start < self.steps, "0 <= start < steps", "start", "steps")
        require(self, 1 <= self.every <= self.steps, "1 <= every <= steps", "every", "steps")
        digits = 0 <= first < 10 and 0 <= second < 10
        require(self, digits, "classes from 0 to 9", "classes")
        require(self, first != second, "two different classes", "classes")
        require(self, self.examples >= 2, "two examples or more", "examples")
        require(self, all(width >= 1 for width in self.widths), "widths of at least 1", "widths")


# The abstract gives neither data nor model; two classes of CIFAR-10 are what such experiments use,
# and the rest is ours.
PAPER = Config(
    lr=0.02, small_lr=0.01, data="cifar10", classes=(0, 1), examples=1000, widths=(200, 200),
    steps=4000, every=40,
)  # fmt: skip
