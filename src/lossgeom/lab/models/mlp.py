"""Multi-layer perceptrons."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from lossgeom.wording import one_of


class Sine(nn.Module):
    """The sine of each number."""

    def forward(self, z: Tensor) -> Tensor:
        """Take the sine."""
        return torch.sin(z)


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": partial(nn.LeakyReLU, 0.1),
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "elu": nn.ELU,
    "sine": Sine,
}


def mlp(
    inputs: int,
    outputs: int,
    widths: Sequence[int] = (48, 48, 48),
    activation: str = "relu",
    seed: int = 0,
    batch_norm: bool = False,
) -> nn.Sequential:
    """Linear layers with an activation between them, initialised as torch does.

    Args:
        inputs: numbers per example.
        outputs: classes, or numbers to regress.
        widths: of the hidden layers; none gives a linear model.
        activation: one of ``ACTIVATIONS``.
        seed: of the initialisation; the global generator is left as it is.
        batch_norm: whether a batch normalisation goes before each activation.

    Raises:
        ValueError: for an unknown activation or a width below 1.

    >>> mlp(2, 1, widths=[3])
    Sequential(
      (0): Linear(in_features=2, out_features=3, bias=True)
      (1): ReLU()
      (2): Linear(in_features=3, out_features=1, bias=True)
    )
    """
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"expected activation to be one of {one_of(ACTIVATIONS)}, got {activation!r}"
        )
    if any(width < 1 for width in widths):
        raise ValueError(f"expected widths of at least 1, got {list(widths)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise([inputs, *widths, outputs]):
            layers += [nn.Linear(fan_in, fan_out)]
            layers += [nn.BatchNorm1d(fan_out)] if batch_norm else []
            layers += [ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[: -2 if batch_norm else -1])
