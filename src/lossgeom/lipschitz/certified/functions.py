"""What is known of functions and methods that a model calls outside of modules."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossgeom.lipschitz.certified.affine_maps import dense, scaling
from lossgeom.lipschitz.certified.graph import Builder, Concatenation, Sum, Value
from lossgeom.lipschitz.certified.rearranging import EXAMPLES, UnknownArguments, rearranged

Handler = Callable[..., Any]


def _as_module(kind: Callable[..., nn.Module]) -> Handler:
    """A function that does what a module with the same settings does."""

    def handler(builder: Builder, input: Any, *settings: Any, **options: Any) -> Value:  # noqa: A002
        options.pop("inplace", None)
        if not isinstance(input, Value) or any(isinstance(s, Value) for s in settings):
            raise UnknownArguments
        return builder.layer(kind(*settings, **options).eval(), input)

    return handler


def _max_pool(kind: Callable[..., nn.Module]) -> Handler:
    """Whose functions have the last two settings the other way round."""

    def module(
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> nn.Module:
        return kind(kernel_size, stride or None, padding, dilation, return_indices, ceil_mode)

    return _as_module(module)


def _dropout(
    builder: Builder,  # noqa: ARG001
    input: Value,  # noqa: A002
    p: float = 0.5,  # noqa: ARG001
    training: bool = True,
    inplace: bool = False,  # noqa: ARG001
) -> Value:
    if training:
        raise UnknownArguments
    return input


def _moved(function: Callable[..., Any]) -> Handler:
    """What moves numbers about and changes none."""

    def handler(builder: Builder, value: Any, *settings: Any, **options: Any) -> Any:
        if not isinstance(value, Value):
            return _element(value, *settings)
        try:
            maps = rearranged(lambda x: function(x, *settings, **options), value.shape)
        except (TypeError, RuntimeError, IndexError, ValueError):
            raise UnknownArguments from None
        parts = tuple(value if A is None else builder.add(A, value) for A in maps)
        return parts[0] if len(parts) == 1 else parts

    return handler


def _element(values: Any, *place: Any) -> Any:
    """One or some of several results."""
    if not isinstance(values, (tuple, list)) or len(place) != 1:
        raise UnknownArguments
    return values[place[0]]


def _concatenation(builder: Builder, values: Any, dim: int = 0) -> Value:
    """Laid out one after the other, and rearranged from there."""
    if not all(isinstance(value, Value) for value in values):
        raise UnknownArguments
    sizes = [math.prod(value.shape) for value in values]

    def laid_out(x: Tensor) -> Tensor:
        parts = torch.split(x, sizes, dim=1)
        shaped = [p.reshape(len(x), *v.shape) for p, v in zip(parts, values, strict=True)]
        return torch.cat(shaped, dim)

    return cast(Value, _moved(laid_out)(builder, builder.add(Concatenation(), *values)))


def _same(builder: Builder, value: Value) -> Value:  # noqa: ARG001
    return value


def _to(builder: Builder, value: Value, *settings: Any, **options: Any) -> Value:  # noqa: ARG001
    """Convert to another floating type, which changes nothing where all is in float64."""
    if not all(part in (torch.float32, torch.float64) for part in (*settings, *options.values())):
        raise UnknownArguments
    return value


def _copy(builder: Builder, value: Value) -> Value:
    return builder.copy(value)


def _size(builder: Builder, value: Value, dim: int | None = None) -> Any:  # noqa: ARG001
    shape = torch.Size((EXAMPLES, *value.shape))
    return shape if dim is None else shape[dim]


def _attribute(builder: Builder, value: Value, name: str) -> Any:
    if name == "dtype":
        return torch.float64
    if name != "shape":
        raise UnknownArguments
    return _size(builder, value)


def _sum_over(mean: bool) -> Handler:
    """Of the numbers along some dimensions, put last to be the inputs of a linear layer."""

    def handler(builder: Builder, input: Value, dim: Any = None, keepdim: bool = False) -> Value:  # noqa: A002
        rank = len(input.shape) + 1
        dims = [d % rank for d in ([dim] if isinstance(dim, int) else dim or ())]
        if not dims or 0 in dims:
            raise UnknownArguments
        kept = [d for d in range(rank) if d not in dims]
        k = math.prod(input.shape[d - 1] for d in dims)
        last = _moved(lambda x: x.permute(*kept, *dims).flatten(len(kept)))(builder, input)
        weight = torch.full((1, k), 1 / k if mean else 1.0, dtype=torch.float64)
        total = builder.add(dense(weight, None, last.shape), last)
        size = [1 if d in dims else n for d, n in enumerate(input.shape, 1) if keepdim or d in kept]
        return cast(Value, _moved(lambda x: x.reshape(len(x), *size))(builder, total))

    return handler


def _sum(sign: float) -> Handler:
    """A sum or a difference of two tensors of one shape, or of a tensor and a constant."""

    def handler(builder: Builder, x: Any, y: Any) -> Value:
        if isinstance(x, Value) and isinstance(y, Value):
            if x.shape != y.shape:
                raise UnknownArguments
            return builder.add(Sum(), x, y if sign > 0 else _line(builder, y, -1.0))
        if isinstance(x, Value):
            return _line(builder, x, 1.0, y, sign)
        return _line(builder, y, sign, x)

    return handler


def _product(builder: Builder, x: Any, y: Any) -> Value:
    value, factor = (x, y) if isinstance(x, Value) else (y, x)
    return _line(builder, value, factor)


def _quotient(builder: Builder, x: Any, y: Any) -> Value:
    if not isinstance(x, Value):
        raise UnknownArguments
    return _line(builder, x, _constant(y, x).reciprocal())


def _negative(builder: Builder, x: Value) -> Value:
    return _line(builder, x, -1.0)


def _constant(thing: Any, like: Value) -> Tensor:
    """A number or a tensor, for every number of an example."""
    if isinstance(thing, bool) or not isinstance(thing, (int, float, Tensor)):
        raise UnknownArguments
    tensor = torch.as_tensor(thing, dtype=torch.float64).detach()
    if tensor.ndim > len(like.shape) and len(tensor) != 1:
        raise UnknownArguments
    try:
        return tensor.expand(1, *like.shape)[0]
    except RuntimeError:
        raise UnknownArguments from None


def _line(
    builder: Builder, value: Value, factor: Any, shift: Any = 0.0, sign: float = 1.0
) -> Value:
    """``factor * value + sign * shift``, by channels if it can be, or else number by number."""
    weight, bias = _constant(factor, value), sign * _constant(shift, value)
    channels = [
        numbers.flatten(1) if numbers.ndim > 1 else numbers[:, None] for numbers in (weight, bias)
    ]
    if all((numbers == numbers[:, :1]).all() for numbers in channels):
        weight, bias = (numbers[:, 0] for numbers in channels)
        return builder.add(scaling(weight, bias, bias.abs(), value.shape), value)
    flat = _moved(lambda x: x.flatten(1))(builder, value)
    line = scaling(weight.flatten(), bias.flatten(), bias.abs().flatten(), flat.shape)
    shaped = _moved(lambda x: x.reshape(len(x), *value.shape))
    return cast(Value, shaped(builder, builder.add(line, flat)))


def _table(*rows: tuple[Handler, tuple[Any, ...]]) -> dict[Any, Handler]:
    return {name: handler for handler, names in rows for name in names}


REARRANGING = (
    "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "permute", "transpose", "movedim",
    "swapaxes", "flip", "roll", "chunk", "split", "narrow", "select", "unbind",
)  # fmt: skip

_SHARED: list[tuple[Handler, str]] = [
    (_as_module(nn.ReLU), "relu"),
    (_as_module(nn.ReLU), "relu_"),
    (_as_module(nn.Tanh), "tanh"),
    (_as_module(nn.Sigmoid), "sigmoid"),
    (_sum_over(mean=True), "mean"),
    (_sum_over(mean=False), "sum"),
]

METHODS: dict[str, Handler] = {
    **{name: handler for handler, name in _SHARED},
    **{name: _moved(getattr(Tensor, name)) for name in (*REARRANGING, "view")},
    "contiguous": _same,
    "float": _same,
    "double": _same,
    "to": _to,
    "add": _sum(1.0),
    "sub": _sum(-1.0),
    "mul": _product,
    "div": _quotient,
    "clone": _copy,
    "size": _size,
}

FUNCTIONS: dict[Any, Handler] = {
    **{getattr(torch, name): handler for handler, name in _SHARED},
    **{getattr(torch, name): _moved(getattr(torch, name)) for name in REARRANGING},
    **_table(
        (_as_module(nn.ReLU), (F.relu,)),
        (_as_module(nn.ReLU6), (F.relu6,)),
        (_as_module(nn.LeakyReLU), (F.leaky_relu,)),
        (_as_module(nn.Hardtanh), (F.hardtanh,)),
        (_as_module(nn.Tanh), (F.tanh,)),
        (_as_module(nn.Sigmoid), (F.sigmoid,)),
        (_as_module(nn.SiLU), (F.silu,)),
        (_as_module(nn.GELU), (F.gelu,)),
        (_as_module(nn.Hardswish), (F.hardswish,)),
        (_as_module(nn.ELU), (F.elu,)),
        (_as_module(nn.CELU), (F.celu,)),
        (_as_module(nn.SELU), (F.selu,)),
        (_as_module(nn.Softplus), (F.softplus,)),
        (_as_module(nn.AvgPool1d), (F.avg_pool1d,)),
        (_as_module(nn.AvgPool2d), (F.avg_pool2d,)),
        (_as_module(nn.AdaptiveAvgPool1d), (F.adaptive_avg_pool1d,)),
        (_as_module(nn.AdaptiveAvgPool2d), (F.adaptive_avg_pool2d,)),
        (_max_pool(nn.MaxPool1d), (F.max_pool1d, torch.max_pool1d)),
        (_max_pool(nn.MaxPool2d), (F.max_pool2d, torch.max_pool2d)),
        (_dropout, (F.dropout,)),
        (_sum(1.0), (operator.add, operator.iadd, torch.add)),
        (_sum(-1.0), (operator.sub, operator.isub, torch.sub)),
        (_product, (operator.mul, operator.imul, torch.mul)),
        (_quotient, (operator.truediv, operator.itruediv, torch.div)),
        (_negative, (operator.neg, torch.neg)),
        (_moved(operator.getitem), (operator.getitem,)),
        (_concatenation, (torch.cat, torch.concat)),
        (_attribute, (getattr,)),
    ),
}
