"""Torch's functions and methods that a traced model may call outside of modules."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossgeom.lipschitz.certified.activations import ACTIVATIONS
from lossgeom.lipschitz.certified.affine_maps import dense, scaling
from lossgeom.lipschitz.certified.graph import Concatenation, Sum, Value
from lossgeom.lipschitz.certified.rearranging import EXAMPLES, UnknownArguments, rearranged
from lossgeom.lipschitz.certified.torch_modules import layer_of

Handler = Callable[..., Any]
PLACES = (torch, F, Tensor, operator)  # where functions of known names are looked up
REARRANGING = (
    "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "permute", "transpose", "movedim",
    "swapaxes", "flip", "roll", "chunk", "split", "narrow", "select", "unbind", "view", "getitem",
)  # fmt: skip
POOLING = (nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)
MODULES = {kind.__name__.lower(): kind for kind in (*ACTIVATIONS, *POOLING)}
MAX_POOL_SETTINGS = (
    "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices",
)  # fmt: skip


def handler_of(function: Any) -> Handler | None:
    """What a function does to values, if it is a known one of torch's or Python's."""
    name = str(getattr(function, "__name__", ""))
    if not any(getattr(place, name, getattr) is function for place in PLACES):
        return None
    if name in REARRANGING:
        return _moved(function)
    module = MODULES.get(name.replace("_", ""))  # such as F.leaky_relu, torch.relu_, Tensor.tanh
    return HANDLERS.get(name) if module is None else _as_module(module)


def _as_module(kind: Callable[..., nn.Module]) -> Handler:
    """A function that does what a module with the same settings does."""

    def handler(input: Any, *settings: Any, inplace: bool = False, **options: Any) -> Value:  # noqa: A002, ARG001
        if not isinstance(input, Value) or any(isinstance(s, Value) for s in settings):
            raise UnknownArguments
        return input.then(layer_of(kind(*settings, **options).eval(), input.shape))

    return handler


def _max_pool(kind: Callable[..., nn.Module]) -> Handler:
    """A function whose last two settings are the other way round in the module."""

    def module(*settings: Any, **options: Any) -> nn.Module:
        options |= zip(MAX_POOL_SETTINGS, settings, strict=False)
        return kind(**{**options, "stride": options.get("stride") or None})

    return _as_module(module)


def _dropout(input: Value, p: float = 0.5, training: bool = True, inplace: bool = False) -> Value:  # noqa: A002, ARG001
    if training:
        raise UnknownArguments
    return input


def _moved(function: Callable[..., Any]) -> Handler:
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


def _reshaped(value: Value, *shape: int) -> Value:
    return cast(Value, _moved(Tensor.reshape)(value, EXAMPLES, *shape))


def _concatenation(values: Any, dim: int = 0) -> Value:
    """Values laid out one after the other, and rearranged from there."""
    if not all(isinstance(value, Value) for value in values):
        raise UnknownArguments
    sizes = [math.prod(value.shape) for value in values]

    def laid_out(x: Tensor) -> Tensor:
        parts = torch.split(x, sizes, dim=1)
        shaped = [p.reshape(len(x), *v.shape) for p, v in zip(parts, values, strict=True)]
        return torch.cat(shaped, dim)

    return cast(Value, _moved(laid_out)(values[0].then(Concatenation(), *values[1:])))


def _to(value: Value, *settings: Any, **options: Any) -> Value:
    """Ignore a conversion to another floating type, because all is in float64."""
    if not all(part in (torch.float32, torch.float64) for part in (*settings, *options.values())):
        raise UnknownArguments
    return value


def _size(value: Value, dim: int | None = None) -> Any:
    shape = torch.Size((EXAMPLES, *value.shape))
    return shape if dim is None else shape[dim]


def _attribute(value: Value, name: str) -> Any:
    if name not in ("dtype", "shape"):
        raise UnknownArguments
    return torch.float64 if name == "dtype" else _size(value)


def _sum_over(mean: bool) -> Handler:
    """Add numbers along some dimensions, put last to be the inputs of a linear layer."""

    def handler(input: Value, dim: Any = None, keepdim: bool = False) -> Value:  # noqa: A002
        rank = len(input.shape) + 1
        dims = [d % rank for d in ([dim] if isinstance(dim, int) else dim or ())]
        if not dims or 0 in dims:
            raise UnknownArguments
        kept = [d for d in range(rank) if d not in dims]
        k = math.prod(input.shape[d - 1] for d in dims)
        last = _moved(lambda x: x.permute(*kept, *dims).flatten(len(kept)))(input)
        weight = torch.full((1, k), 1 / k if mean else 1.0, dtype=torch.float64)
        size = [1 if d in dims else n for d, n in enumerate(input.shape, 1) if keepdim or d in kept]
        return _reshaped(last.then(dense(weight, None, last.shape)), *size)

    return handler


def _sum(sign: float) -> Handler:
    """A sum or a difference of two tensors of one shape, or of a tensor and a constant."""

    def handler(x: Any, y: Any) -> Value:
        if not isinstance(x, Value):
            return _line(y, sign, _constant(x, y))
        if not isinstance(y, Value):
            return _line(x, 1.0, sign * _constant(y, x))
        if x.shape != y.shape:
            raise UnknownArguments
        return x.then(Sum(), y if sign > 0 else _line(y, -1.0))

    return handler


def _product(x: Any, y: Any) -> Value:
    return _line(x, y) if isinstance(x, Value) else _line(y, x)


def _quotient(x: Any, y: Any) -> Value:
    if not isinstance(x, Value):
        raise UnknownArguments
    return _line(x, _constant(y, x).reciprocal())


def _constant(thing: Any, like: Value) -> Tensor:
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


def _line(value: Value, factor: Any, shift: Any = 0.0) -> Value:
    """``factor * value + shift``, by channels if it can be, or else number by number."""
    weight, bias = _constant(factor, value), _constant(shift, value)
    channels = [numbers.reshape(*numbers.shape[:1], -1) for numbers in (weight, bias)]
    if all((numbers == numbers[:, :1]).all() for numbers in channels):
        weight, bias = (numbers[:, 0] for numbers in channels)
        return value.then(scaling(weight, bias, bias.abs(), value.shape))
    flat = _reshaped(value, -1)
    line = scaling(weight.flatten(), bias.flatten(), bias.abs().flatten(), flat.shape)
    return _reshaped(flat.then(line), *value.shape)


HANDLERS: dict[str, Handler] = {
    "max_pool1d": _max_pool(nn.MaxPool1d),
    "max_pool2d": _max_pool(nn.MaxPool2d),
    "dropout": _dropout,
    **dict.fromkeys(("add", "iadd"), _sum(1.0)),
    **dict.fromkeys(("sub", "isub"), _sum(-1.0)),
    **dict.fromkeys(("mul", "imul"), _product),
    **dict.fromkeys(("div", "truediv", "itruediv"), _quotient),
    "neg": lambda x: _line(x, -1.0),
    "mean": _sum_over(mean=True),
    "sum": _sum_over(mean=False),
    **dict.fromkeys(("cat", "concat"), _concatenation),
    **dict.fromkeys(("contiguous", "float", "double"), lambda x: x),
    "to": _to,
    "clone": Value.copy,
    "size": _size,
    "getattr": _attribute,
}
