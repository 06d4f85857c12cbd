"""The settings of the study."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from lossgeom.lab.studies._network import NetworkSettings
from lossgeom.lab.studies._study import require

MLP, CENTRED, BATCH_NORM, LENET5 = NETWORKS = ("mlp", "centred", "batch-norm", "lenet5")
LAYERS = ("fc1", "fc2", "fc3")  # of the mlp; the linear ones of LeNet5 have the same names
CONVOLUTIONS = ("conv1", "conv2")

CLASSES = 10  # of every data set
FEW = 5  # the largest numbers of eigenvectors that are few


@dataclass(frozen=True)
class Config:
    """Settings of the study; the defaults run in less than two minutes on two cores."""

    lr: float = 0.05
    """Learning rate of SGD."""
    batch_size: int = 50
    """Examples in a batch."""
    steps: int = 1200
    """Steps to train the mlp."""
    lenet5_steps: int = 400
    """Steps to train LeNet5."""
    every: int = 100
    """Steps between measurements of the loss."""
    pairs: int = 20
    """Largest eigenpairs of each layer."""
    measured: int = 500
    """Examples to measure the layers of LeNet5 on; those of the mlp are measured on all."""
    data: Literal["digits", "mnist", "cifar10"] = "digits"
    """Data set."""
    folder: str = "data/mnist"
    """The folder with the files of MNIST or CIFAR-10."""
    examples: int = 1000
    """Examples to train on."""
    chunk: int = 1000
    """Examples to go through at a time in measuring."""
    widths: tuple[int, int] = (20, 20)
    """Widths of the two hidden layers of the mlp."""

    def __post_init__(self) -> None:
        require(self, 0 < self.lr < math.inf, "lr > 0", "lr")
        fits = 1 <= self.batch_size <= self.examples
        require(self, fits, "a batch of at most all examples", "batch_size", "examples")
        for name in ("steps", "lenet5_steps"):
            steps = getattr(self, name)
            whole = 1 <= self.every <= steps and steps % self.every == 0
            require(self, whole, f"{name} a multiple of every", "every", name)
        require(self, self.pairs >= CLASSES, f"pairs >= {CLASSES}", "pairs")
        few = 1 <= self.measured <= self.examples
        require(self, few, "1 <= measured <= examples", "measured", "examples")
        self.network(MLP)  # which looks at the others

    def network(self, name: str) -> NetworkSettings:
        """The data and the model of a network."""
        return NetworkSettings(
            data=self.data, folder=self.folder, examples=self.examples, chunk=self.chunk,
            model="lenet5" if name == LENET5 else "mlp", widths=self.widths,
        )  # fmt: skip

    def steps_of(self, name: str) -> int:
        """Steps to train a network."""
        return self.lenet5_steps if name == LENET5 else self.steps


# The learning rate and the networks are the authors': two hidden layers of 200 on MNIST and
# CIFAR-10, and LeNet5. For the latter add --data cifar10 --folder data/cifar-10-batches-bin
# --examples 50000. Batches and epochs are ours.
PAPER = Config(
    lr=0.01, batch_size=100, steps=60_000, lenet5_steps=60_000, every=3_000, measured=5_000,
    data="mnist", examples=60_000, widths=(200, 200),
)  # fmt: skip
