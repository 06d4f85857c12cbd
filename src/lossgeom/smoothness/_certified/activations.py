"""Elementwise functions, with the ranges of their values and slopes on intervals."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

ROUNDING = 1e-14  # of slopes, all of which are of order one
FAR = 100.0  # where the slopes of smooth functions have come to their limits
SILU_BEND = 2.399357280520546  # z tanh(z / 2) = 2
SILU_LOWEST = -1.278464542761074  # 1 + z (1 - sigmoid(z)) = 0
GELU_LOWEST = -0.751791524693564  # Phi(z) + z Phi'(z) = 0
SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772  # torch's

Elementwise = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Activation:
    """An elementwise function whose slope is monotone between its breaks.

    Attributes:
        value: the function.
        slope: its derivative.
        breaks: points where the slope jumps or turns, with its limits from the left and the right.
        turning: points where the function itself turns.
        rounding: of the slope.
    """

    value: Elementwise
    slope: Elementwise
    breaks: tuple[tuple[float, float, float], ...]
    turning: tuple[float, ...] = ()
    rounding: float = ROUNDING

    def slopes(
        self, lower: Float[Tensor, " ..."], upper: Float[Tensor, " ..."]
    ) -> tuple[Float[Tensor, " ..."], Float[Tensor, " ..."]]:
        """Bounds of the slope on intervals: its extremes are at their ends and at breaks."""
        left, right = self.slope(lower), self.slope(upper)
        least, largest = torch.minimum(left, right), torch.maximum(left, right)
        for point, before, after in self.breaks:
            inside = (lower <= point) & (point <= upper)
            least = torch.where(inside, least.clamp(max=min(before, after)), least)
            largest = torch.where(inside, largest.clamp(min=max(before, after)), largest)
        return least - self.rounding, largest + self.rounding

    def values(
        self, lower: Float[Tensor, " ..."], upper: Float[Tensor, " ..."]
    ) -> tuple[Float[Tensor, " ..."], Float[Tensor, " ..."]]:
        """Bounds of the function on intervals."""
        left, right = self.value(lower), self.value(upper)
        least, largest = torch.minimum(left, right), torch.maximum(left, right)
        for point in self.turning:
            inside = (lower <= point) & (point <= upper)
            there = self.value(torch.full_like(least, point))
            least = torch.where(inside, torch.minimum(least, there), least)
            largest = torch.where(inside, torch.maximum(largest, there), largest)
        return least - ROUNDING * (1 + least.abs()), largest + ROUNDING * (1 + largest.abs())

    @cached_property
    def lipschitz(self) -> float:
        """The largest slope anywhere, in magnitude."""
        everywhere = torch.tensor(math.inf, dtype=torch.float64)
        least, largest = self.slopes(-everywhere, everywhere)
        return max(-least.item(), largest.item())


def _smooth(
    value: Elementwise, slope: Elementwise, *bends: float, turning: tuple[float, ...] = ()
) -> Activation:
    """A smooth function, from the points where its slope turns."""

    def tamed(z: Tensor) -> Tensor:
        return slope(z.clamp(-FAR, FAR))

    limits = [slope(torch.tensor(bend, dtype=torch.float64)).item() for bend in bends]
    breaks = tuple((bend, limit, limit) for bend, limit in zip(bends, limits, strict=True))
    return Activation(value, tamed, breaks, turning)


def _exponential(value: Elementwise, scale: float, alpha: float, width: float) -> Activation:
    """``scale z`` above zero and ``scale alpha (exp(z / width) - 1)`` below."""
    below = scale * alpha / width

    def slope(z: Tensor) -> Tensor:
        return torch.where(z > 0, scale, below * torch.exp(z.clamp(max=0) / width))

    rounding = ROUNDING * (1 + abs(scale) + abs(below))
    return Activation(value, slope, ((0.0, below, scale),), (0.0,), rounding)


def _leaky(below: float) -> Activation:
    return Activation(
        lambda z: F.leaky_relu(z, below),
        lambda z: torch.where(z > 0, torch.ones_like(z), below),
        ((0.0, below, 1.0),),
        turning=(0.0,),
        rounding=0.0,
    )


def _clipped(least: float, largest: float) -> Activation:
    return Activation(
        lambda z: z.clamp(least, largest),
        lambda z: ((z > least) & (z < largest)).to(z),
        ((least, 0.0, 1.0), (largest, 1.0, 0.0)),
        rounding=0.0,
    )


def _softplus(module: nn.Softplus) -> Activation:
    beta, threshold = float(module.beta), float(module.threshold)
    if not beta > 0:
        raise TypeError(f"expected Softplus with beta > 0, got {beta}; no bound is known for it")
    switch = (threshold / beta, 1 / (1 + math.exp(-threshold)), 1.0)  # torch goes on linearly

    def slope(z: Tensor) -> Tensor:
        return torch.where(beta * z > threshold, 1.0, torch.sigmoid(beta * z))

    return Activation(lambda z: F.softplus(z, beta, threshold), slope, (switch,))


def _gelu(module: nn.GELU) -> Activation:
    if module.approximate != "none":
        raise TypeError(
            f"no bound is known for GELU(approximate={module.approximate!r}); use the exact GELU()"
        )

    def slope(z: Tensor) -> Tensor:
        density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
        gelu_slope: Tensor = torch.special.ndtr(z) + z * density
        return gelu_slope

    root = math.sqrt(2)
    return _smooth(F.gelu, slope, -root, root, turning=(GELU_LOWEST,))


def _silu_slope(z: Tensor) -> Tensor:
    slope: Tensor = torch.sigmoid(z) * (1 + z * torch.sigmoid(-z))
    return slope


ACTIVATIONS: dict[type[nn.Module], Callable[[Any], Activation]] = {
    nn.ReLU: lambda _: _leaky(0.0),
    nn.LeakyReLU: lambda module: _leaky(float(module.negative_slope)),
    nn.ReLU6: lambda _: _clipped(0.0, 6.0),
    nn.Hardtanh: lambda module: _clipped(float(module.min_val), float(module.max_val)),
    nn.Tanh: lambda _: _smooth(torch.tanh, lambda z: 1 / torch.cosh(z).square(), 0.0),
    nn.Sigmoid: lambda _: _smooth(
        torch.sigmoid, lambda z: torch.sigmoid(z) * torch.sigmoid(-z), 0.0
    ),
    nn.SiLU: lambda _: _smooth(F.silu, _silu_slope, -SILU_BEND, SILU_BEND, turning=(SILU_LOWEST,)),
    nn.GELU: _gelu,
    nn.ELU: lambda module: _exponential(lambda z: F.elu(z, module.alpha), 1.0, module.alpha, 1.0),
    nn.CELU: lambda module: _exponential(
        lambda z: F.celu(z, module.alpha), 1.0, module.alpha, module.alpha
    ),
    nn.SELU: lambda _: _exponential(F.selu, SELU_SCALE, SELU_ALPHA, 1.0),
    nn.Softplus: _softplus,
}
