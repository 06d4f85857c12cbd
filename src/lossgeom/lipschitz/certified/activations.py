"""Elementwise functions, with the ranges of their values and slopes on intervals."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, cosh, exp, nn, sigmoid, tanh

ROUNDING = 1e-14  # error of slopes, all of which are of order one
FAR = 100.0  # where the slopes of smooth functions have come to their limits
LEAST_THRESHOLD = 20.0  # Softplus jumps at its threshold, where torch goes on linearly
TANH_BEND = 0.6584789484624084  # tanh(z)^2 = 1 / 3
SIGMOID_BEND = 1.3169578969248166  # log(2 + sqrt(3))
SILU_LOWEST = -1.278464542761074  # 1 + z (1 - sigmoid(z)) = 0
SILU_TURN = 2.399357280520546  # z tanh(z / 2) = 2
SILU_BEND = 3.435840993535111  # where the third derivative is zero
GELU_LOWEST = -0.751791524693564  # Phi(z) + z Phi'(z) = 0
TANH_GELU_LOWEST, TANH_GELU_TURN = -0.752461422071016, 1.418504008790828
SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772  # torch's

Elementwise = Callable[[Tensor], Tensor]
Numbers = Float[Tensor, " ..."]
Ranges = tuple[Numbers, Numbers]


@dataclass(frozen=True, eq=False)
class Monotone:
    """A function that is monotone between its breaks.

    Attributes:
        function: of each number.
        breaks: points where it turns or jumps, each with its value or its two limits there, which
            may be tensors, such as one number for each channel.
        period: after which all of it repeats, if it does.
    """

    function: Elementwise
    breaks: tuple[tuple[Any, ...], ...] = ()
    period: float | None = None

    def range(self, lower: Numbers, upper: Numbers) -> Ranges:
        """The extremes on intervals, which are at their ends and at breaks."""
        left, right = self.function(lower), self.function(upper)
        least, largest = torch.minimum(left, right), torch.maximum(left, right)
        for point, *limits in self.breaks:
            inside = self._holds(point, lower, upper)
            for limit in limits:
                least = torch.where(inside, least.clamp(max=limit), least)
                largest = torch.where(inside, largest.clamp(min=limit), largest)
        return least, largest

    def _holds(self, point: float | Numbers, lower: Numbers, upper: Numbers) -> Tensor:
        """Whether a break, or its image some periods away, is in an interval, up to rounding."""
        if self.period is None:
            return (lower <= point) & (point <= upper)
        first, last = (lower - point) / self.period, (upper - point) / self.period
        first, last = first - ROUNDING * (1 + first.abs()), last + ROUNDING * (1 + last.abs())
        return first.ceil() <= last.floor()


def turning(function: Elementwise, *points: float) -> Monotone:
    """A continuous function, from the points where it turns."""
    return Monotone(function, tuple((point, _at(function, point)) for point in points))


def joined(*pieces: Elementwise, at: tuple[float, ...]) -> Monotone:
    """Pieces that follow each other at some points, each monotone where it is used."""

    def function(z: Tensor) -> Tensor:
        value = pieces[0](z)
        for point, piece in zip(at, pieces[1:], strict=True):
            value = torch.where(z > point, piece(z), value)
        return value

    neighbours = zip(at, pieces[:-1], pieces[1:], strict=True)
    return Monotone(function, tuple((z, _at(f, z), _at(g, z)) for z, f, g in neighbours))


def _at(function: Elementwise, point: float) -> float:
    return function(torch.tensor(point, dtype=torch.float64)).item()


def _constant(number: float) -> Elementwise:
    return lambda z: torch.full_like(z, number)


@dataclass(frozen=True, eq=False)
class Activation:
    """An elementwise function with what is known of its derivatives.

    Attributes:
        value: the function.
        slope: its derivative.
        curvature: its second derivative where the slope does not jump.
        rounding: of the slope and, relative to one plus its size, of the value.
        far: how far from zero the derivatives have come to their limits, and are no longer
            evaluated.
    """

    value: Monotone
    slope: Monotone
    curvature: Monotone
    rounding: float = ROUNDING
    far: float = math.inf

    def __call__(self, x: Numbers) -> Numbers:
        """The function itself."""
        return self.value.function(x)

    def slopes(self, lower: Numbers, upper: Numbers) -> Ranges:
        """Bounds of the slope on intervals."""
        least, largest = self.slope.range(*self._near(lower, upper))
        return least - self.rounding, largest + self.rounding

    def values(self, lower: Numbers, upper: Numbers) -> Ranges:
        """Bounds of the function on intervals."""
        least, largest = self.value.range(lower, upper)
        rounding = max(self.rounding, ROUNDING)
        return least - rounding * (1 + least.abs()), largest + rounding * (1 + largest.abs())

    def bend(self, lower: Numbers, upper: Numbers) -> Numbers:
        """Bounds of the magnitude of the second derivative on intervals; infinite with jumps."""
        least, largest = self.curvature.range(*self._near(lower, upper))
        bend = torch.maximum(-least, largest) + self.rounding
        for point, *limits in self.slope.breaks:
            jumps = (lower <= point) & (point <= upper) & (limits[0] != limits[-1])
            bend = bend.masked_fill(jumps, math.inf)
        return bend

    @cached_property
    def lipschitz(self) -> float:
        """The largest slope anywhere, in magnitude."""
        everywhere = torch.tensor(math.inf, dtype=torch.float64)
        least, largest = self.slopes(-everywhere, everywhere)
        return max(-least.min().item(), largest.max().item())

    def _near(self, *ends: Tensor) -> list[Tensor]:
        return [z.clamp(-self.far, self.far) for z in ends]


def _linear_pieces(value: Monotone, *slopes: float, at: tuple[float, ...]) -> Activation:
    """A function of straight pieces, whose slopes are exact."""
    slope = joined(*map(_constant, slopes), at=at)
    return Activation(value, slope, Monotone(torch.zeros_like), rounding=0.0)


def _leaky(below: float) -> Activation:
    return _linear_pieces(turning(lambda z: F.leaky_relu(z, below), 0.0), below, 1.0, at=(0.0,))


def prelu(weight: Tensor, shape: tuple[int, ...]) -> Activation:
    """``max(z, 0) + weight min(z, 0)``, with one weight, or one for each channel of an example."""
    below = weight.detach().double().reshape(-1, *[1] * (len(shape) - 1))
    value = Monotone(lambda z: torch.where(z > 0, z, below * z), ((0.0, 0.0),))
    slope = Monotone(lambda z: torch.where(z > 0, 1.0, below), ((0.0, below, 1.0),))
    return Activation(value, slope, Monotone(torch.zeros_like), rounding=0.0)


def _clipped(least: float, largest: float) -> Activation:
    value = Monotone(lambda z: z.clamp(least, largest))
    return _linear_pieces(value, 0.0, 1.0, 0.0, at=(least, largest))


def _hardswish(module: nn.Hardswish) -> Activation:  # noqa: ARG001
    """``z (z + 3) / 6`` between -3 and 3."""
    zero, third = _constant(0.0), _constant(1 / 3)
    return Activation(
        turning(F.hardswish, -1.5),
        joined(zero, lambda z: (2 * z + 3) / 6, _constant(1.0), at=(-3.0, 3.0)),
        joined(zero, third, zero, at=(-3.0, 3.0)),
    )


def _exponential(
    value: Elementwise, scale: float, alpha: float, width: float = 1.0, inexact: float = 0.0
) -> Activation:
    """``scale z`` above zero and ``scale alpha (exp(z / width) - 1)`` below."""
    below = scale * alpha / width
    return Activation(
        turning(value, 0.0),
        joined(lambda z: below * exp(z / width), _constant(scale), at=(0.0,)),
        joined(lambda z: below / width * exp(z / width), _constant(0.0), at=(0.0,)),
        ROUNDING * (1 + abs(scale) + abs(below)) + inexact,
    )


def _celu(module: nn.CELU) -> Activation:
    """CELU, with the error of torch's own slope, for which 1 / alpha is rounded to float32."""
    alpha = float(module.alpha)
    inverse = torch.tensor(1 / alpha, dtype=torch.float32).item()
    inexact = 2 * abs(inverse * alpha - 1)
    return _exponential(lambda z: F.celu(z, alpha), 1.0, alpha, alpha, inexact)


def _softplus(module: nn.Softplus) -> Activation:
    beta, threshold = float(module.beta), float(module.threshold)
    if not (beta > 0 and threshold >= LEAST_THRESHOLD):
        raise TypeError(
            f"expected Softplus with beta > 0 and a threshold of {LEAST_THRESHOLD:.0f} or more, "
            f"where torch's function hardly jumps; got beta={beta} and threshold={threshold}; no "
            "bound is known for it"
        )
    return Activation(
        Monotone(lambda z: F.softplus(z, beta, threshold)),
        Monotone(lambda z: sigmoid(beta * z)),
        turning(lambda z: beta * sigmoid(beta * z) * sigmoid(-beta * z), 0.0),
        ROUNDING + math.exp(-threshold) * max(1.0, 1 / beta),  # the jump at the threshold
    )


def _density(z: Tensor) -> Tensor:
    return exp(-z.square() / 2) / math.sqrt(2 * math.pi)


def _gelu(module: nn.GELU) -> Activation:
    if module.approximate == "tanh":
        return _tanh_gelu()
    root = math.sqrt(2)
    return _smooth(
        turning(F.gelu, GELU_LOWEST),
        turning(lambda z: torch.special.ndtr(z) + z * _density(z), -root, root),
        turning(lambda z: (2 - z.square()) * _density(z), -2.0, 0.0, 2.0),
    )


def _tanh_gelu() -> Activation:
    """``z (1 + tanh u) / 2`` with a cubic u; its slope turns twice only.

    The second derivative times cosh(u)^2 is ``u'' z / 2 + u' - z u'^2 tanh u``. With t = 3 a z^2 it
    is zero where ``1 + 2 t = (1 + t)^2 c z tanh u``, and ``(1 + t)^2 / (1 + 2 t)`` grows with z.
    """
    c, a = math.sqrt(2 / math.pi), 0.044715

    def slope(z: Tensor) -> Tensor:
        u, du = c * (z + a * z**3), c * (1 + 3 * a * z.square())
        return sigmoid(2 * u) * (1 + 2 * z * du * sigmoid(-2 * u))

    return _smooth(
        turning(lambda z: F.gelu(z, approximate="tanh"), TANH_GELU_LOWEST),
        turning(slope, -TANH_GELU_TURN, TANH_GELU_TURN),
        Monotone(_constant(math.inf)),
    )


_smooth = partial(Activation, far=FAR)

SIGMOID = _smooth(
    Monotone(sigmoid),
    turning(lambda z: sigmoid(z) * sigmoid(-z), 0.0),
    turning(lambda z: -sigmoid(z) * sigmoid(-z) * tanh(z / 2), -SIGMOID_BEND, SIGMOID_BEND),
)
SILU = _smooth(
    turning(F.silu, SILU_LOWEST),
    turning(lambda z: sigmoid(z) * (1 + z * sigmoid(-z)), -SILU_TURN, SILU_TURN),
    turning(lambda z: sigmoid(z) * sigmoid(-z) * (2 - z * tanh(z / 2)), -SILU_BEND, 0.0, SILU_BEND),
)
TANH = _smooth(
    Monotone(tanh),
    turning(lambda z: 1 / cosh(z).square(), 0.0),
    turning(lambda z: -2 * tanh(z) / cosh(z).square(), -TANH_BEND, TANH_BEND),
)

ACTIVATIONS: dict[type[nn.Module], Callable[[Any], Activation]] = {
    nn.ReLU: lambda _: _leaky(0.0),
    nn.LeakyReLU: lambda module: _leaky(float(module.negative_slope)),
    nn.ReLU6: lambda _: _clipped(0.0, 6.0),
    nn.Hardtanh: lambda module: _clipped(float(module.min_val), float(module.max_val)),
    nn.Hardswish: _hardswish,
    nn.Tanh: lambda _: TANH,
    nn.Sigmoid: lambda _: SIGMOID,
    nn.SiLU: lambda _: SILU,
    nn.GELU: _gelu,
    nn.ELU: lambda module: _exponential(lambda z: F.elu(z, module.alpha), 1.0, module.alpha),
    nn.CELU: _celu,
    nn.SELU: lambda _: _exponential(F.selu, SELU_SCALE, SELU_ALPHA),
    nn.Softplus: _softplus,
}
