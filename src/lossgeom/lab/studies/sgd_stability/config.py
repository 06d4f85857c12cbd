"""The settings of the study."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from lossgeom.lab.studies._network import Network, NetworkSettings
from lossgeom.lab.studies._study import require

NETWORK = NetworkSettings(examples=100, chunk=1_000, widths=(16,), activation="tanh")


@dataclass(frozen=True)
class Config:
    """Settings of the study; the defaults run in about two minutes on two cores."""

    problems: int = 5
    """Random problems on which the threshold is compared with enumeration."""
    replicas: int = 8_000
    """Replicas of SGD in a population."""
    population_steps: int = 400
    """Steps that a population takes."""
    lr: float = 0.02
    """Learning rate of the full-batch descent to the minimum."""
    descent_steps: int = 3_000
    """Its steps, before a few Gauss-Newton steps."""
    batch_size: tuple[int, ...] = (1, 10)
    """Batch sizes of SGD that starts at the minimum, increasing."""
    below: float = 0.9
    """Its learning rate in parts of the threshold, where it is to stay."""
    above: float = 1.3
    """And where it is to leave."""
    steps: int = 2_000
    """Steps that it takes."""
    noisy_lr: tuple[float, ...] = (0.04, 0.08, 0.1, 0.2)
    """Learning rates of SGD from the initialisation, each with one of the next batch sizes."""
    noisy_batch_size: tuple[int, ...] = (1, 1, 10, 10)
    """Batch sizes of these."""
    noisy_steps: int = 9_000
    """Steps of SGD from the initialisation."""
    every: int = 1_500
    """Steps between measurements of batch sharpness."""
    network: Network = NETWORK
    """Model and data: even and odd digits, or airplanes and automobiles."""

    def __post_init__(self) -> None:
        n = self.network.examples
        counts = (
            "problems", "replicas", "population_steps", "descent_steps", "steps", "noisy_steps",
            "every",
        )  # fmt: skip
        require(self, all(getattr(self, name) >= 1 for name in counts), "at least 1", *counts)
        rates = (self.lr, *self.noisy_lr)
        positive = all(0 < each < math.inf for each in rates)
        require(self, positive, "learning rates > 0", "lr", "noisy_lr")
        sizes, paired = self.batch_size, ("noisy_lr", "noisy_batch_size")
        increasing = bool(sizes) and list(sizes) == sorted(set(sizes))
        require(self, increasing, "increasing batch sizes", "batch_size")
        fit = all(1 <= size <= n for size in (*sizes, *self.noisy_batch_size))
        require(self, fit, f"batch sizes of 1 to {n}", "batch_size", "noisy_batch_size")
        alike = 0 < len(self.noisy_lr) == len(self.noisy_batch_size)
        require(self, alike, "as many learning rates as batch sizes, and one or more", *paired)
        require(self, 0 < self.below < 1 < self.above, "0 < below < 1 < above", "below", "above")

    @property
    def noisy(self) -> list[tuple[float, int]]:
        """Learning rates and batch sizes of SGD from the initialisation."""
        return list(zip(self.noisy_lr, self.noisy_batch_size, strict=True))


# The theory is of any data and model; two classes of CIFAR-10 are what Ma and Ying train on, and
# the rest is ours. Thresholds need the Jacobian of all examples, of 2 GiB at most.
PAPER = Config(
    lr=0.002,
    descent_steps=30_000,
    batch_size=(1, 10, 100),
    noisy_lr=(0.005, 0.01, 0.02, 0.05),
    noisy_batch_size=(1, 1, 10, 10),
    noisy_steps=150_000,
    every=5_000,
    network=replace(NETWORK, data="cifar10", examples=500, widths=(64,)),
)
