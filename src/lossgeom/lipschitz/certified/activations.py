"""Elementwise functions, with the ranges of their values and slopes on intervals."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

ROUNDING = 1e-14  # of slopes, all of which are of order one
FAR = 100.0  # where the slopes of smooth functions have come to their limits
LEAST_THRESHOLD = 20.0  # of Softplus, beyond which torch goes on linearly, with a jump
TANH_BEND = 0.6584789484624084  # tanh(z)^2 = 1 / 3
SIGMOID_BEND = 1.3169578969248166  # log(2 + sqrt(3))
SILU_LOWEST = -1.278464542761074  # 1 + z (1 - sigmoid(z)) = 0
SILU_TURN = 2.399357280520546  # z tanh(z / 2) = 2
SILU_BEND = 3.435840993535111  # where the third derivative is zero
GELU_LOWEST = -0.751791524693564  # Phi(z) + z Phi'(z) = 0
TANH_GELU_LOWEST, TANH_GELU_TURN = -0.752461422071016, 1.418504008790828
SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772  # torch's

Elementwise = Callable[[Tensor], Tensor]
Ranges = tuple[Float[Tensor, " ..."], Float[Tensor, " ..."]]


@dataclass(frozen=True, eq=False)
class Monotone:
    """A function that is monotone between its breaks.

    Attributes:
        function: of each number.
        breaks: points where it jumps or turns, with its values or limits there.
    """

    function: Elementwise
    breaks: tuple[tuple[float, ...], ...] = ()

    @classmethod
    def between(cls, function: Elementwise, *points: float) -> Monotone:
        """A continuous function, from the points where it turns."""
        there = [function(torch.tensor(point, dtype=torch.float64)).item() for point in points]
        return cls(function, tuple(zip(points, there, strict=True)))

    def range(self, lower: Float[Tensor, " ..."], upper: Float[Tensor, " ..."]) -> Ranges:
        """The extremes on intervals, which are at their ends and at breaks."""
        left, right = self.function(lower), self.function(upper)
        least, largest = torch.minimum(left, right), torch.maximum(left, right)
        for point, *limits in self.breaks:
            inside = (lower <= point) & (point <= upper)
            least = torch.where(inside, least.clamp(max=min(limits)), least)
            largest = torch.where(inside, largest.clamp(min=max(limits)), largest)
        return least, largest


@dataclass(frozen=True, eq=False)
class Activation:
    """An elementwise function with what is known of its derivatives.

    Attributes:
        value: the function.
        slope: its derivative.
        curvature: its second derivative, infinite at jumps of the slope.
        rounding: of the slope and, relative to one plus its size, of the value.
    """

    value: Monotone
    slope: Monotone
    curvature: Monotone
    rounding: float = ROUNDING

    def slopes(self, lower: Float[Tensor, " ..."], upper: Float[Tensor, " ..."]) -> Ranges:
        """Bounds of the slope on intervals."""
        least, largest = self.slope.range(lower, upper)
        return least - self.rounding, largest + self.rounding

    def values(self, lower: Float[Tensor, " ..."], upper: Float[Tensor, " ..."]) -> Ranges:
        """Bounds of the function on intervals."""
        least, largest = self.value.range(lower, upper)
        rounding = max(self.rounding, ROUNDING)
        return least - rounding * (1 + least.abs()), largest + rounding * (1 + largest.abs())

    def bend(
        self, lower: Float[Tensor, " ..."], upper: Float[Tensor, " ..."]
    ) -> Float[Tensor, " ..."]:
        """Bounds of the magnitude of the second derivative on intervals."""
        least, largest = self.curvature.range(lower, upper)
        return torch.maximum(-least, largest) + self.rounding

    @cached_property
    def lipschitz(self) -> float:
        """The largest slope anywhere, in magnitude."""
        everywhere = torch.tensor(math.inf, dtype=torch.float64)
        least, largest = self.slopes(-everywhere, everywhere)
        return max(-least.item(), largest.item())


def _smooth(value: Monotone, slope: Monotone, curvature: Monotone) -> Activation:
    """A function whose slope comes to its limits far out."""

    def tamed(function: Monotone) -> Monotone:
        return Monotone(lambda z: function.function(z.clamp(-FAR, FAR)), function.breaks)

    return Activation(value, tamed(slope), tamed(curvature))


def _bent(below: Elementwise, above: Elementwise, at: float, *limits: float) -> Monotone:
    """One function up to a point, another one beyond."""
    return Monotone(lambda z: torch.where(z > at, above(z), below(z)), ((at, *limits),))


def _exponential(value: Elementwise, scale: float, alpha: float, width: float) -> Activation:
    """``scale z`` above zero and ``scale alpha (exp(z / width) - 1)`` below."""
    below = scale * alpha / width
    bend = below / width if below == scale else math.inf

    def decay(z: Tensor) -> Tensor:
        return torch.exp(z.clamp(max=0) / width)

    return Activation(
        Monotone(value, ((0.0, 0.0),)),
        _bent(lambda z: below * decay(z), lambda z: torch.full_like(z, scale), 0.0, below, scale),
        _bent(lambda z: below / width * decay(z), torch.zeros_like, 0.0, bend, 0.0),
        ROUNDING * (1 + abs(scale) + abs(below)),
    )


def _celu(alpha: float) -> Activation:
    """With the error of torch's own slope, for which 1 / alpha is rounded to single precision."""
    inverse = torch.tensor(1 / alpha, dtype=torch.float32).item()
    exact = _exponential(lambda z: F.celu(z, alpha), 1.0, alpha, alpha)
    return replace(exact, rounding=exact.rounding + 2 * abs(inverse * alpha - 1))


def _leaky(below: float) -> Activation:
    return Activation(
        Monotone(lambda z: F.leaky_relu(z, below), ((0.0, 0.0),)),
        _bent(lambda z: torch.full_like(z, below), torch.ones_like, 0.0, below, 1.0),
        Monotone(torch.zeros_like, ((0.0, 0.0 if below == 1 else math.inf),)),
        rounding=0.0,
    )


def _clipped(least: float, largest: float) -> Activation:
    return Activation(
        Monotone(lambda z: z.clamp(least, largest)),
        Monotone(
            lambda z: ((z > least) & (z < largest)).to(z), ((least, 0.0, 1.0), (largest, 1.0, 0.0))
        ),
        Monotone(torch.zeros_like, ((least, math.inf), (largest, math.inf))),
        rounding=0.0,
    )


def _softplus(module: nn.Softplus) -> Activation:
    beta, threshold = float(module.beta), float(module.threshold)
    if not (beta > 0 and threshold >= LEAST_THRESHOLD):
        raise TypeError(
            f"expected Softplus with beta > 0 and a threshold of {LEAST_THRESHOLD:.0f} or more, "
            f"where torch's function hardly jumps; got beta={beta} and threshold={threshold}; no "
            "bound is known for it"
        )

    def bend(z: Tensor) -> Tensor:
        return beta * torch.sigmoid(beta * z) * torch.sigmoid(-beta * z)

    return Activation(
        Monotone(lambda z: F.softplus(z, beta, threshold)),
        Monotone(lambda z: torch.sigmoid(beta * z)),
        Monotone.between(bend, 0.0),
        ROUNDING + math.exp(-threshold) * max(1.0, 1 / beta),  # of going on linearly
    )


def _density(z: Tensor) -> Tensor:
    return torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)


def _gelu(module: nn.GELU) -> Activation:
    if module.approximate == "tanh":
        return _tanh_gelu()
    root = math.sqrt(2)
    return _smooth(
        Monotone.between(F.gelu, GELU_LOWEST),
        Monotone.between(lambda z: torch.special.ndtr(z) + z * _density(z), -root, root),
        Monotone.between(lambda z: (2 - z.square()) * _density(z), -2.0, 0.0, 2.0),
    )


def _tanh_gelu() -> Activation:
    """``z (1 + tanh u) / 2`` with a cubic u; its slope turns twice only.

    The second derivative times cosh(u)^2 is ``u'' z / 2 + u' - z u'^2 tanh u``. With t = 3 a z^2 it
    is zero where ``1 + 2 t = (1 + t)^2 c z tanh u``, and ``(1 + t)^2 / (1 + 2 t)`` grows with z.
    """
    c, a = math.sqrt(2 / math.pi), 0.044715

    def slope(z: Tensor) -> Tensor:
        u, du = c * (z + a * z**3), c * (1 + 3 * a * z.square())
        return torch.sigmoid(2 * u) * (1 + 2 * z * du * torch.sigmoid(-2 * u))

    return _smooth(
        Monotone.between(lambda z: F.gelu(z, approximate="tanh"), TANH_GELU_LOWEST),
        Monotone.between(slope, -TANH_GELU_TURN, TANH_GELU_TURN),
        Monotone(lambda z: torch.full_like(z, math.inf)),
    )


def _silu_slope(z: Tensor) -> Tensor:
    slope: Tensor = torch.sigmoid(z) * (1 + z * torch.sigmoid(-z))
    return slope


def _silu_curvature(z: Tensor) -> Tensor:
    return torch.sigmoid(z) * torch.sigmoid(-z) * (2 - z * torch.tanh(z / 2))


def _silu() -> Activation:
    return _smooth(
        Monotone.between(F.silu, SILU_LOWEST),
        Monotone.between(_silu_slope, -SILU_TURN, SILU_TURN),
        Monotone.between(_silu_curvature, -SILU_BEND, 0.0, SILU_BEND),
    )


def _tanh() -> Activation:
    return _smooth(
        Monotone(torch.tanh),
        Monotone.between(lambda z: 1 / torch.cosh(z).square(), 0.0),
        Monotone.between(
            lambda z: -2 * torch.tanh(z) / torch.cosh(z).square(), -TANH_BEND, TANH_BEND
        ),
    )


def _sigmoid() -> Activation:
    def slope(z: Tensor) -> Tensor:
        return torch.sigmoid(z) * torch.sigmoid(-z)

    return _smooth(
        Monotone(torch.sigmoid),
        Monotone.between(slope, 0.0),
        Monotone.between(lambda z: -slope(z) * torch.tanh(z / 2), -SIGMOID_BEND, SIGMOID_BEND),
    )


def _hardswish() -> Activation:
    """``z (z + 3) / 6`` between -3 and 3."""

    def inside(z: Tensor) -> Tensor:
        return ((z > -3) & (z < 3)).to(z)

    return Activation(
        Monotone(F.hardswish, ((-1.5, -0.375),)),
        Monotone(
            lambda z: torch.where(z < 3, inside(z) * (2 * z.clamp(-3, 3) + 3) / 6, 1.0),
            ((-3.0, 0.0, -0.5), (3.0, 1.5, 1.0)),
        ),
        Monotone(lambda z: inside(z) / 3, ((-3.0, math.inf), (3.0, math.inf))),
    )


ACTIVATIONS: dict[type[nn.Module], Callable[[Any], Activation]] = {
    nn.ReLU: lambda _: _leaky(0.0),
    nn.LeakyReLU: lambda module: _leaky(float(module.negative_slope)),
    nn.ReLU6: lambda _: _clipped(0.0, 6.0),
    nn.Hardtanh: lambda module: _clipped(float(module.min_val), float(module.max_val)),
    nn.Hardswish: lambda _: _hardswish(),
    nn.Tanh: lambda _: _tanh(),
    nn.Sigmoid: lambda _: _sigmoid(),
    nn.SiLU: lambda _: _silu(),
    nn.GELU: _gelu,
    nn.ELU: lambda module: _exponential(lambda z: F.elu(z, module.alpha), 1.0, module.alpha, 1.0),
    nn.CELU: lambda module: _celu(float(module.alpha)),
    nn.SELU: lambda _: _exponential(F.selu, SELU_SCALE, SELU_ALPHA, 1.0),
    nn.Softplus: _softplus,
}
