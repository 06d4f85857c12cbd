"""What tasks on handwritten digits are learned from, and by."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim import Adam

from lossgeom.lab.datasets import digits
from lossgeom.lab.models import mlp
from lossgeom.lab.training import optimize

ALL = 1796  # digits to train on, all but one


def learn(
    model: nn.Module, x: Tensor, y: Tensor, steps: int, decays: dict[nn.Module, float]
) -> None:
    """Minimise one half of the squared error by Adam on all examples, with a decay of each part."""
    groups = [{"params": part.parameters(), "weight_decay": w} for part, w in decays.items()]
    adam = Adam(groups, lr=0.01)
    for _ in optimize(model, "squared_error", [(x, y)], optimizers=[adam], steps=steps):
        pass


def all_digits(seed: int) -> Tensor:
    """The images (N, 64), with the mean of every pixel subtracted, in an order of their own."""
    return digits(ALL, seed).train[0]


def teacher_of_even(seed: int, decay: float, steps: int) -> nn.Sequential:
    """A network with 32 tanh units that has learned 1 for even digits and -1 for odd ones."""
    x, labels = digits(ALL, seed).train
    teacher = mlp(64, 1, (32,), "tanh", seed + 2)
    learn(teacher, x, 1 - 2 * (labels[:, None] % 2).float(), steps, {teacher: decay})
    return teacher.double()


def mean_image(digit: int) -> tuple[Tensor, Tensor]:
    """The places (64, 2) of pixels on the unit square, and their means (64, 1) over a digit."""
    x, labels = digits(ALL, centred=False, lowest=0.0).train
    centres = (torch.arange(8) + 0.5) / 8
    return torch.cartesian_prod(centres, centres), x[labels == digit].mean(0)[:, None]
