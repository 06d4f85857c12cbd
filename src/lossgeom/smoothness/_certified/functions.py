"""What is known of functions and methods that a model calls outside of modules."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossgeom.smoothness._certified.affine_maps import scaling
from lossgeom.smoothness._certified.graph import Builder, Sum, Value
from lossgeom.smoothness._certified.modules import mean_over, reshaped

Handler = Callable[..., Any]
EXAMPLES = 2  # in the batch that sizes are asked of, so that mixing them shows


class UnknownArguments(Exception):  # noqa: N818
    """A known function is called in a way that nothing is known of."""


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


def _shaped(function: Callable[..., Tensor]) -> Handler:
    """What keeps the numbers in their order and gives them another shape."""

    def handler(builder: Builder, value: Any, *settings: Any, **options: Any) -> Value:
        if not isinstance(value, Value):
            raise UnknownArguments
        after = function(torch.zeros(EXAMPLES, *value.shape), *settings, **options).shape
        if len(after) < 1 or after[0] != EXAMPLES:
            raise UnknownArguments
        operation = reshaped(value.shape, tuple(after[1:]) or (1,))
        return value if operation is None else builder.add(operation, value)

    return handler


def _same(builder: Builder, value: Value) -> Value:  # noqa: ARG001
    return value


def _size(builder: Builder, value: Value, dim: int | None = None) -> Any:  # noqa: ARG001
    shape = torch.Size((EXAMPLES, *value.shape))
    return shape if dim is None else shape[dim]


def _attribute(builder: Builder, value: Value, name: str) -> Any:
    if name != "shape":
        raise UnknownArguments
    return _size(builder, value)


def _mean(builder: Builder, value: Value, dim: Any = None, keepdim: bool = False) -> Value:
    """Over all dimensions after the channels."""
    rank = len(value.shape) + 1
    dims = sorted(d % rank for d in ([dim] if isinstance(dim, int) else dim or ()))
    if not 3 <= rank <= 5 or dims != list(range(2, rank)):
        raise UnknownArguments
    kernel = value.shape[1:]
    pooled = builder.add(mean_over(value.shape, kernel, kernel, [0] * len(kernel)), value)
    flat = None if keepdim else reshaped(pooled.shape, pooled.shape[:1])
    return pooled if flat is None else builder.add(flat, pooled)


def _sum(sign: float) -> Handler:
    """A sum or a difference of two tensors of one shape or of a tensor and a number."""

    def handler(builder: Builder, x: Any, y: Any) -> Value:
        if isinstance(x, Value) and isinstance(y, Value):
            if x.shape != y.shape:
                raise UnknownArguments
            return builder.add(Sum(), x, y if sign > 0 else _line(builder, y, -1.0))
        if isinstance(x, Value):
            return _line(builder, x, 1.0, sign * _number(y))
        return _line(builder, y, sign, _number(x))

    return handler


def _product(builder: Builder, x: Any, y: Any) -> Value:
    value, factor = (x, y) if isinstance(x, Value) else (y, x)
    return _line(builder, value, _number(factor))


def _quotient(builder: Builder, x: Any, y: Any) -> Value:
    if not isinstance(x, Value) or _number(y) == 0:
        raise UnknownArguments
    return _line(builder, x, 1 / _number(y))


def _negative(builder: Builder, x: Value) -> Value:
    return _line(builder, x, -1.0)


def _number(thing: Any) -> float:
    if isinstance(thing, bool) or not isinstance(thing, (int, float)):
        raise UnknownArguments
    return float(thing)


def _line(builder: Builder, value: Value, factor: float, shift: float = 0.0) -> Value:
    weight, bias = (torch.tensor([number], dtype=torch.float64) for number in (factor, shift))
    return builder.add(scaling(weight, bias, bias.abs(), value.shape), value)


def _table(*rows: tuple[Handler, tuple[Any, ...]]) -> dict[Any, Handler]:
    return {name: handler for handler, names in rows for name in names}


_SHARED: list[tuple[Handler, str]] = [
    (_as_module(nn.ReLU), "relu"),
    (_as_module(nn.ReLU), "relu_"),
    (_as_module(nn.Tanh), "tanh"),
    (_as_module(nn.Sigmoid), "sigmoid"),
    (_shaped(Tensor.reshape), "reshape"),
    (_shaped(torch.flatten), "flatten"),
    (_shaped(torch.squeeze), "squeeze"),
    (_shaped(torch.unsqueeze), "unsqueeze"),
    (_mean, "mean"),
]

METHODS: dict[str, Handler] = {
    **{name: handler for handler, name in _SHARED},
    "view": _shaped(Tensor.view),
    "contiguous": _same,
    "clone": _same,
    "size": _size,
}

FUNCTIONS: dict[Any, Handler] = {
    **{getattr(torch, name): handler for handler, name in _SHARED},
    **_table(
        (_as_module(nn.ReLU), (F.relu,)),
        (_as_module(nn.ReLU6), (F.relu6,)),
        (_as_module(nn.LeakyReLU), (F.leaky_relu,)),
        (_as_module(nn.Hardtanh), (F.hardtanh,)),
        (_as_module(nn.Tanh), (F.tanh,)),
        (_as_module(nn.Sigmoid), (F.sigmoid,)),
        (_as_module(nn.SiLU), (F.silu,)),
        (_as_module(nn.GELU), (F.gelu,)),
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
        (_attribute, (getattr,)),
    ),
}
