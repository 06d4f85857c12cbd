"""Torch's modules as layers of one example."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations

from lossgeom.lipschitz.certified.activations import ACTIVATIONS, Activation, prelu
from lossgeom.lipschitz.certified.affine_maps import (
    Affine,
    Shape,
    convolution,
    dense,
    scaling,
    transposed_convolution,
)
from lossgeom.lipschitz.certified.graph import Layer
from lossgeom.lipschitz.certified.max_pooling import MaxPool, max_pool
from lossgeom.lipschitz.certified.rearranging import UnknownArguments, rearranged

NORMALISED_DIMENSIONS: dict[type[nn.Module], tuple[int, ...]] = {
    nn.BatchNorm1d: (1, 2),
    nn.BatchNorm2d: (3,),
    nn.BatchNorm3d: (4,),
}
IDENTITY = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


def layer_of(module: nn.Module, shape: Shape) -> Layer | None:
    """A module in eval mode as a layer on inputs of a shape; ``None`` for the identity.

    Raises:
        TypeError: for a module, or a setting of one, of which nothing is known.
    """
    kind = type_before_parametrizations(module)
    if kind in IDENTITY:
        return None
    if kind in ACTIVATIONS:
        return ACTIVATIONS[kind](module)
    if kind in LAYERS:
        return LAYERS[kind](module, shape)
    raise TypeError(
        f"no bound is known for {kind.__name__}; a certified bound needs a network of linear and "
        "convolutional layers, normalisation, pooling, elementwise activations, attention and "
        "sums; write other modules out by those. A lower estimate exists for any model: "
        "lipschitz_lower"
    )


def _each(module: nn.Module, dimensions: int, *names: str) -> list[Shape]:
    """Settings of a module, each with one number for each dimension."""
    settings = (getattr(module, name) for name in names)
    return [
        tuple(given) if isinstance(given, (tuple, list)) else (int(given),) * dimensions
        for given in settings
    ]


def _refuse(module: nn.Module, **settings: bool) -> None:
    for name, unsupported in settings.items():
        if unsupported:
            raise TypeError(
                f"no bound is known for {type(module).__name__} with this setting of {name}: "
                f"{module}; replace it, or use lipschitz_lower"
            )


def _check_dimensions(module: nn.Module, shape: Shape, *expected: int) -> None:
    if len(shape) not in expected:
        raise TypeError(
            f"expected examples of {expected[0]} dimensions in {type(module).__name__}, got shape "
            f"{shape}; give every example its own row in the batch"
        )


def _linear(module: nn.Linear, shape: Shape) -> Affine:
    return dense(module.weight, module.bias, shape)


def _convolution(module: nn.Conv1d | nn.Conv2d | nn.Conv3d, shape: Shape) -> Affine:
    _check_dimensions(module, shape, len(module.kernel_size) + 1)
    _refuse(module, padding_mode=module.padding_mode != "zeros")
    settings = {"stride": module.stride, "dilation": module.dilation, "groups": module.groups}
    return convolution(module.weight, module.bias, shape, padding=_padding(module), **settings)


def _padding(module: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> tuple[int, ...]:
    if module.padding == "valid":
        return (0,) * len(module.kernel_size)
    if module.padding != "same":
        return _each(module, len(module.kernel_size), "padding")[0]
    spans = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
    _refuse(module, padding=any(span % 2 for span in spans))
    return tuple(span // 2 for span in spans)


def _transposed_convolution(module: Any, shape: Shape) -> Affine:
    dimensions = len(module.kernel_size)
    _check_dimensions(module, shape, dimensions + 1)
    names = ("stride", "padding", "dilation", "output_padding")
    settings = dict(zip(names, _each(module, dimensions, *names), strict=True))
    return transposed_convolution(
        module.weight, module.bias, shape, **settings, groups=module.groups
    )


def _prelu(module: nn.PReLU, shape: Shape) -> Activation:
    return prelu(module.weight, shape)


def _batch_norm(module: Any, shape: Shape) -> Affine:
    """``gamma (x - mean) / sqrt(var + eps) + beta``, with the running averages."""
    _refuse(module, track_running_stats=module.running_mean is None)
    _check_dimensions(module, shape, *NORMALISED_DIMENSIONS[type_before_parametrizations(module)])
    mean, var = module.running_mean.detach().double(), module.running_var.detach().double()
    scale, shift = (var + module.eps).rsqrt(), torch.zeros_like(mean)
    if module.affine:
        scale, shift = scale * module.weight.detach().double(), module.bias.detach().double()
    return scaling(scale, shift - mean * scale, shift.abs() + (mean * scale).abs(), shape)


def _pooled_dimensions(module: nn.Module, shape: Shape) -> int:
    """How many dimensions a module pools over, 1, 2 or 3, as its name says."""
    dimensions = int(type(module).__name__[-2])
    _check_dimensions(module, shape, dimensions + 1)
    return dimensions


def _mean(shape: Shape, kernel: Shape, stride: Shape, padding: Shape) -> Affine:
    """Averages over windows of every channel, padding counted as zeros."""
    weight = torch.full((shape[0], 1, *kernel), 1 / math.prod(kernel), dtype=torch.float64)
    settings = {"stride": stride, "padding": padding, "dilation": (1,) * len(kernel)}
    return convolution(weight, None, shape, **settings, groups=shape[0])


def _average_pool(module: Any, shape: Shape) -> Affine:
    dimensions = _pooled_dimensions(module, shape)
    kernel, stride, padding = _each(module, dimensions, "kernel_size", "stride", "padding")
    _refuse(
        module,
        ceil_mode=module.ceil_mode,
        count_include_pad=any(padding) and not module.count_include_pad,
        divisor_override=getattr(module, "divisor_override", None) is not None,
    )
    return _mean(shape, kernel, stride, padding)


def _adaptive_average_pool(module: Any, shape: Shape) -> Affine:
    dimensions, given, sizes = _pooled_dimensions(module, shape), module.output_size, shape[1:]
    outputs = given if isinstance(given, (tuple, list)) else (given,) * dimensions
    pairs = [(size, output or size) for size, output in zip(sizes, outputs, strict=True)]
    _refuse(module, output_size=any(size % output for size, output in pairs))
    kernel = tuple(size // output for size, output in pairs)
    return _mean(shape, kernel, kernel, (0,) * dimensions)


def _max_pool(module: Any, shape: Shape) -> MaxPool:
    _refuse(module, return_indices=module.return_indices)
    dimensions = _pooled_dimensions(module, shape)
    settings = _each(module, dimensions, "kernel_size", "stride", "padding", "dilation")
    return max_pool(shape, *settings, ceil_mode=module.ceil_mode)


def _rearranged(module: nn.Module, shape: Shape) -> Affine | None:
    try:
        return rearranged(module, shape)[0]
    except UnknownArguments:
        raise TypeError(
            f"no bound is known for {module} on examples of shape {shape}: it mixes them; give "
            "every example its own row in the batch"
        ) from None


LAYERS: dict[type[nn.Module], Callable[[Any, Shape], Layer | None]] = {
    nn.Linear: _linear,
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), _convolution),
    **dict.fromkeys(
        (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), _transposed_convolution
    ),
    nn.PReLU: _prelu,
    **dict.fromkeys(NORMALISED_DIMENSIONS, _batch_norm),
    **dict.fromkeys((nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d), _average_pool),
    **dict.fromkeys(
        (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d), _adaptive_average_pool
    ),
    **dict.fromkeys((nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d), _max_pool),
    **dict.fromkeys((nn.Flatten, nn.Unflatten, nn.PixelShuffle, nn.ChannelShuffle), _rearranged),
}
