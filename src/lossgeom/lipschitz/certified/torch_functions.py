"""Torch's functions and methods that a traced model may call outside of modules."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossgeom.lipschitz.certified.activations import ACTIVATIONS
from lossgeom.lipschitz.certified.building import (
    Handler,
    concatenated,
    constant,
    expanded,
    line,
    moved,
    product,
    summed,
)
from lossgeom.lipschitz.certified.graph import Sum, Value
from lossgeom.lipschitz.certified.rearranging import EXAMPLES, UnknownArguments
from lossgeom.lipschitz.certified.torch_blocks import FUNCTIONS
from lossgeom.lipschitz.certified.torch_modules import layer_of
from lossgeom.lipschitz.certified.waves import COSINE, SINE

PLACES = (torch, F, Tensor, operator)  # where functions of known names are looked up
REARRANGING = (
    "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "permute", "transpose", "movedim",
    "swapaxes", "flip", "roll", "chunk", "split", "narrow", "select", "unbind", "view", "getitem",
    "expand", "repeat",
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
        return moved(function)
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


def _to(value: Value, *settings: Any, **options: Any) -> Value:
    """Ignore a conversion to another floating type, because all is in float64."""
    if not all(part in (torch.float32, torch.float64) for part in (*settings, *options.values())):
        raise UnknownArguments
    return value


def _size(value: Value, dim: int | None = None) -> Any:
    shape = torch.Size((EXAMPLES, *value.shape))
    return shape if dim is None else shape[dim]


def _attribute(value: Value, name: str) -> Any:
    match name:
        case "shape":
            return _size(value)
        case "ndim":
            return len(value.shape) + 1
        case "dtype":
            return torch.float64
        case "device":
            return torch.get_default_device()  # that of the inputs, while a model is traced
        case "mT":
            return moved(Tensor.transpose)(value, -2, -1)
    raise UnknownArguments


def _sum(sign: float) -> Handler:
    """A sum or a difference of two tensors of one shape, or of a tensor and a constant."""

    def handler(x: Any, y: Any) -> Value:
        if not isinstance(x, Value):
            return line(y, sign, constant(x, y))
        if not isinstance(y, Value):
            return line(x, 1.0, sign * constant(y, x))
        a, b = expanded(x, y)
        return a.then(Sum(), b if sign > 0 else line(b, -1.0))

    return handler


def _product(x: Any, y: Any) -> Value:
    if isinstance(x, Value) and isinstance(y, Value):
        return product(*expanded(x, y))
    return line(x, y) if isinstance(x, Value) else line(y, x)


def _quotient(x: Any, y: Any) -> Value:
    if not isinstance(x, Value):
        raise UnknownArguments
    return line(x, constant(y, x).reciprocal())


HANDLERS: dict[str, Handler] = {
    "max_pool1d": _max_pool(nn.MaxPool1d),
    "max_pool2d": _max_pool(nn.MaxPool2d),
    "dropout": _dropout,
    **dict.fromkeys(("add", "iadd"), _sum(1.0)),
    **dict.fromkeys(("sub", "isub"), _sum(-1.0)),
    **dict.fromkeys(("mul", "imul"), _product),
    **dict.fromkeys(("div", "truediv", "itruediv"), _quotient),
    "sin": lambda x: x.then(SINE),
    "cos": lambda x: x.then(COSINE),
    "neg": lambda x: line(x, -1.0),
    "mean": summed(mean=True),
    "sum": summed(mean=False),
    **dict.fromkeys(("cat", "concat"), concatenated),
    **dict.fromkeys(("contiguous", "float", "double"), lambda x: x),
    "to": _to,
    "clone": Value.copy,
    "size": _size,
    "getattr": _attribute,
    **FUNCTIONS,
}
