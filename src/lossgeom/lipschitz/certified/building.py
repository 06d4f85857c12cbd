"""Steps of a graph that move numbers about, add them up, or take constants to them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from lossgeom.lipschitz.certified.affine_maps import dense, scaling
from lossgeom.lipschitz.certified.graph import Concatenation, Value
from lossgeom.lipschitz.certified.products import Product
from lossgeom.lipschitz.certified.rearranging import EXAMPLES, UnknownArguments, rearranged
from lossgeom.lipschitz.certified.smooth_maps import SmoothMap

HIDDEN = -1e200  # stands for -inf: its exponential is zero next to that of any other number
Handler = Callable[..., Any]


def moved(function: Callable[..., Any]) -> Handler:
    """A function that moves numbers about and changes none."""

    def handler(value: Any, *settings: Any, **options: Any) -> Any:
        if isinstance(value, (tuple, list)) and len(settings) == 1:
            return value[settings[0]]  # one or some of several results
        if not isinstance(value, Value):
            raise UnknownArguments
        try:
            maps = rearranged(lambda x: function(x, *settings, **options), value.shape)
        except (TypeError, RuntimeError, IndexError, ValueError):
            raise UnknownArguments from None
        parts = tuple(map(value.then, maps))
        return parts[0] if len(parts) == 1 else parts

    return handler


def reshaped(value: Value, *shape: int) -> Value:
    """The numbers of each example in another shape."""
    return cast(Value, moved(Tensor.reshape)(value, EXAMPLES, *shape))


def concatenated(values: Any, dim: int = 0) -> Value:
    """Values laid out one after the other, and rearranged from there."""
    if not all(isinstance(value, Value) for value in values):
        raise UnknownArguments
    sizes = [math.prod(value.shape) for value in values]

    def laid_out(x: Tensor) -> Tensor:
        parts = torch.split(x, sizes, dim=1)
        shaped = [p.reshape(len(x), *v.shape) for p, v in zip(parts, values, strict=True)]
        return torch.cat(shaped, dim)

    return cast(Value, moved(laid_out)(values[0].then(Concatenation(), *values[1:])))


def summed(mean: bool) -> Handler:
    """Add numbers along some dimensions, put last to be the inputs of a linear layer."""

    def handler(input: Value, dim: Any = None, keepdim: bool = False) -> Value:  # noqa: A002
        rank = len(input.shape) + 1
        dims = [d % rank for d in ([dim] if isinstance(dim, int) else dim or ())]
        if not dims or 0 in dims:
            raise UnknownArguments
        kept = [d for d in range(rank) if d not in dims]
        k = math.prod(input.shape[d - 1] for d in dims)
        last = moved(lambda x: x.permute(*kept, *dims).flatten(len(kept)))(input)
        weight = torch.full((1, k), 1 / k if mean else 1.0, dtype=torch.float64)
        size = [1 if d in dims else n for d, n in enumerate(input.shape, 1) if keepdim or d in kept]
        return reshaped(last.then(dense(weight, None, last.shape)), *size)

    return handler


def constant(thing: Any, like: Value) -> Tensor:
    """A number or a tensor, expanded to the shape of an example."""
    if isinstance(thing, bool) or not isinstance(thing, (int, float, Tensor)):
        raise UnknownArguments
    tensor = torch.as_tensor(thing, dtype=torch.float64).detach()
    if tensor.ndim > len(like.shape) and len(tensor) != 1:
        raise UnknownArguments
    try:
        return tensor.expand(1, *like.shape)[0]
    except RuntimeError:
        raise UnknownArguments from None


def line(value: Value, factor: Any, shift: Any = 0.0) -> Value:
    """``factor * value + shift``, by channels if it can be, or else number by number.

    What is multiplied by 0, or shifted to -inf, as attention is where it is masked, is a constant,
    without rounding.
    """
    weight, bias = constant(factor, value), constant(shift, value)
    hidden = bias == -math.inf
    weight, bias = weight.masked_fill(hidden, 0.0), bias.masked_fill(hidden, HIDDEN)
    magnitude = bias.abs().masked_fill(weight == 0, 0.0)
    channels = [w.reshape(*w.shape[:1], -1) for w in (weight, bias, magnitude)]
    if all((numbers == numbers[:, :1]).all() for numbers in channels):
        weight, bias, magnitude = (numbers[:, 0] for numbers in channels)
        return value.then(scaling(weight, bias, magnitude, value.shape))
    flat = reshaped(value, -1)
    by_number = scaling(weight.flatten(), bias.flatten(), magnitude.flatten(), flat.shape)
    return reshaped(flat.then(by_number), *value.shape)


def in_groups(value: Value, size: int, layer: SmoothMap) -> Value:
    """A map of as many numbers as are next to each other in the last dimensions."""
    return reshaped(reshaped(value, -1, size).then(layer), *value.shape)


def expanded(x: Value, y: Value, *, last: int = 0) -> tuple[Value, Value]:
    """Two values, repeated along dimensions of length one until all but some last ones agree."""
    if len(x.shape) != len(y.shape) or len(x.shape) < last:
        raise UnknownArguments
    kept = len(x.shape) - last
    shape = [max(pair) for pair in zip(x.shape[:kept], y.shape[:kept], strict=True)]
    a, b = (moved(Tensor.expand)(z, EXAMPLES, *shape, *z.shape[kept:]) for z in (x, y))
    return a, b


def product(x: Value, y: Value) -> Value:
    """The product of two values of one shape, number by number."""
    numbers = concatenated([reshaped(x, -1, 1), reshaped(y, -1, 1)], -1)
    return reshaped(numbers.then(Product(1, 1, 1)), *x.shape)


def matrix_product(x: Value, y: Value) -> Value:
    """The product of matrices in the last two dimensions, the others being of one shape."""
    *batch, m, k = x.shape
    n = y.shape[-1]
    pairs = concatenated([reshaped(x, -1, m * k), reshaped(y, -1, k * n)], -1)
    return reshaped(pairs.then(Product(m, k, n)), *batch, m, n)
