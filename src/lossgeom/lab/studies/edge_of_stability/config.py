"""The settings of the study."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

from lossgeom.lab.studies._network import Network, NetworkSettings
from lossgeom.lab.studies._study import require

NETWORK = NetworkSettings(widths=(48, 48), activation="tanh")


@dataclass(frozen=True)
class Config:
    """Settings of the study; the defaults run in about two minutes on two cores."""

    gradient_descent_lr: float = 0.25
    """Learning rate of gradient descent."""
    small_lr: float = 0.02
    """Learning rate at which gradient descent does not get to the edge."""
    heavy_ball_lr: float = 0.25
    """Learning rate of heavy-ball momentum."""
    heavy_ball_momentum: float = 0.7
    """Its momentum."""
    nesterov_lr: float = 0.12
    """Learning rate of Nesterov momentum."""
    nesterov_momentum: float = 0.7
    """Its momentum."""
    rmsprop_lr: float = 5e-4
    """Learning rate of RMSprop."""
    rmsprop_alpha: float = 0.99
    """How much of its mean of squared gradients RMSprop keeps in a step."""
    adam_lr: float = 5e-3
    """Learning rate of Adam."""
    adam_beta1: float = 0.9
    """How much of its mean of gradients Adam keeps in a step."""
    adam_beta2: float = 0.99
    """How much of its mean of squared gradients."""
    muon_lr: float = 0.02
    """Learning rate of Muon, which trains the matrices."""
    bias_lr: float = 0.1
    """Learning rate of gradient descent of what is no matrix, beside Muon."""
    sign_descent_lr: float = 1e-3
    """Step size of sign descent."""
    steps: int = 600
    """Steps to train."""
    every: int = 13
    """Steps between measurements; an odd number sees both sides of an oscillation."""
    network: Network = NETWORK
    """Data and model."""

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name.endswith("lr"):
                require(self, 0 < value < math.inf, "learning rates > 0", each.name)
            elif each.name.endswith(("momentum", "alpha", "beta1", "beta2")):
                require(self, 0 <= value < 1, "numbers in [0, 1)", each.name)
        slower = self.small_lr < self.gradient_descent_lr
        require(self, slower, "small_lr < gradient_descent_lr", "small_lr", "gradient_descent_lr")
        require(self, 1 <= self.every <= self.steps, "1 <= every <= steps", "every", "steps")


# Of the paper are the data with 5,000 examples, the network, the loss and full-batch training. The
# learning rates are ours.
PAPER = Config(
    gradient_descent_lr=0.05,
    small_lr=0.01,
    heavy_ball_lr=0.02,
    heavy_ball_momentum=0.9,
    nesterov_lr=0.02,
    nesterov_momentum=0.9,
    rmsprop_lr=2e-5,
    adam_lr=1e-4,
    adam_beta2=0.999,
    muon_lr=0.005,
    sign_descent_lr=1e-4,
    steps=4_000,
    every=45,
    network=replace(NETWORK, data="cifar10", examples=5_000, chunk=1_000, widths=(200, 200)),
)
