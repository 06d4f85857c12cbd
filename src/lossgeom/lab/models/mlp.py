"""Multi-layer perceptrons."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossgeom.messages.wording import one_of


class Sine(nn.Module):
    """The sine of each number."""

    def forward(self, z: Tensor) -> Tensor:
        """Take the sine."""
        return torch.sin(z)


class NTKLinear(nn.Module):
    r"""A linear layer in the parametrisation that has a limit for wide networks.

    .. math:: \sqrt{2 / n} \, W h + 0.1 \, b

    of n inputs h, with W and b drawn with deviation 1.

    Source: Jacot, Gabriel and Hongler, arXiv:1806.07572, without the factor 2, which keeps the size
    of what a relu lets through.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs))
        self.bias = nn.Parameter(torch.randn(outputs))

    def forward(self, h: Tensor) -> Tensor:
        """Apply it."""
        return F.linear(h, math.sqrt(2 / h.shape[-1]) * self.weight, 0.1 * self.bias)


LAYERS: dict[str, Callable[[int, int], nn.Module]] = {"standard": nn.Linear, "ntk": NTKLinear}

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
    parametrization: str = "standard",
) -> nn.Sequential:
    """Linear layers with an activation between them, initialised as torch does by default.

    Args:
        inputs: numbers per example.
        outputs: classes, or numbers to regress.
        widths: of the hidden layers; none gives a linear model.
        activation: one of ``ACTIVATIONS``.
        seed: of the initialisation; the global generator is left as it is.
        batch_norm: whether a batch normalisation goes before each activation.
        parametrization: ``"standard"``, or ``"ntk"`` for layers :class:`NTKLinear`.

    Raises:
        ValueError: for an unknown activation or parametrisation, or a width below 1.

    >>> mlp(2, 1, widths=[3])
    Sequential(
      (0): Linear(in_features=2, out_features=3, bias=True)
      (1): ReLU()
      (2): Linear(in_features=3, out_features=1, bias=True)
    )
    """
    for setting, value, choices in (
        ("activation", activation, ACTIVATIONS), ("parametrization", parametrization, LAYERS)
    ):  # fmt: skip
        if value not in choices:
            raise ValueError(f"expected {setting} to be one of {one_of(choices)}, got {value!r}")
    if any(width < 1 for width in widths):
        raise ValueError(f"expected widths of at least 1, got {list(widths)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise([inputs, *widths, outputs]):
            layers += [LAYERS[parametrization](fan_in, fan_out)]
            layers += [nn.BatchNorm1d(fan_out)] if batch_norm else []
            layers += [ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[: -2 if batch_norm else -1])
