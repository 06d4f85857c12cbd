"""What is known of torch's modules as layers of one example."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from lossgeom.lipschitz.certified.activations import ACTIVATIONS, Activation
from lossgeom.lipschitz.certified.affine_maps import (
    Affine,
    convolution,
    dense,
    scaling,
)
from lossgeom.lipschitz.certified.max_pooling import MaxPool, max_pool
from lossgeom.lipschitz.certified.rearranging import UnknownArguments, rearranged

Shape = tuple[int, ...]
Layer = Affine | Activation | MaxPool
KNOWN_NOTHING = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


def layer_of(module: nn.Module, shape: Shape) -> Layer | None:
    """A module in eval mode as a layer on inputs of a shape; ``None`` for the identity.

    Raises:
        TypeError: for a module, or a setting of one, of which nothing is known.
    """
    kind = type_before_parametrizations(module)
    if kind in KNOWN_NOTHING:
        return None
    if kind in ACTIVATIONS:
        return ACTIVATIONS[kind](module)
    if kind in LAYERS:
        return LAYERS[kind](module, shape)
    raise TypeError(
        f"no bound is known for {kind.__name__}; a certified bound needs a network of linear and "
        "convolutional layers, batch normalisation in eval mode, pooling, elementwise activations "
        "and sums. A lower estimate exists for any model: lipschitz_lower"
    )


def mean_over(shape: Shape, kernel: Sequence[int], stride: Sequence[int],
              padding: Sequence[int]) -> Affine:  # fmt: skip
    """Averages over windows of every channel, padding counted as zeros."""
    weight = torch.full((shape[0], 1, *kernel), 1 / math.prod(kernel), dtype=torch.float64)
    ones = [1] * len(kernel)
    return convolution(weight, None, shape, stride, padding, ones, groups=shape[0])


def _doubled(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach().double()


def _each(setting: Any, dimensions: int) -> tuple[int, ...]:
    return tuple(setting) if isinstance(setting, (tuple, list)) else (int(setting),) * dimensions


def _refuse(module: nn.Module, **settings: bool) -> None:
    for name, unsupported in settings.items():
        if unsupported:
            raise TypeError(
                f"no bound is known for {type(module).__name__} with this setting of {name}: "
                f"{module}; replace it, or use lipschitz_lower"
            )


def _check_dimensions(module: nn.Module, shape: Shape, expected: int) -> None:
    if len(shape) != expected:
        raise TypeError(
            f"expected examples of {expected} dimensions in {type(module).__name__}, got shape "
            f"{shape}; give every example its own row in the batch"
        )


def _linear(module: nn.Linear, shape: Shape) -> Affine:
    return dense(module.weight.detach().double(), _doubled(module.bias), shape)


def _convolution(module: nn.Conv1d | nn.Conv2d | nn.Conv3d, shape: Shape) -> Affine:
    _check_dimensions(module, shape, len(module.kernel_size) + 1)
    _refuse(module, padding_mode=module.padding_mode != "zeros")
    padding = _padding(module)
    return convolution(
        module.weight.detach().double(),
        _doubled(module.bias),
        shape,
        module.stride,
        padding,
        module.dilation,
        module.groups,
    )


def _padding(module: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> tuple[int, ...]:
    if module.padding == "valid":
        return (0,) * len(module.kernel_size)
    if module.padding != "same":
        return _each(module.padding, len(module.kernel_size))
    spans = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
    _refuse(module, padding=any(span % 2 for span in spans))
    return tuple(span // 2 for span in spans)


def _batch_norm(module: Any, shape: Shape) -> Affine:
    """``gamma (x - mean) / sqrt(var + eps) + beta``, with the running averages."""
    _refuse(module, track_running_stats=module.running_mean is None)
    expected: dict[type, tuple[int, ...]] = {
        nn.BatchNorm1d: (1, 2),
        nn.BatchNorm2d: (3,),
        nn.BatchNorm3d: (4,),
    }
    dimensions = expected[type_before_parametrizations(module)]
    if len(shape) not in dimensions:
        _check_dimensions(module, shape, dimensions[0])
    mean, var = module.running_mean.detach().double(), module.running_var.detach().double()
    scale = (var + module.eps).rsqrt()
    shift = torch.zeros_like(mean)
    if module.affine:
        scale, shift = scale * module.weight.detach().double(), module.bias.detach().double()
    return scaling(scale, shift - mean * scale, shift.abs() + (mean * scale).abs(), shape)


def _pooled_dimensions(module: nn.Module, shape: Shape) -> int:
    """1, 2 or 3, as the name of the module says."""
    dimensions = int(type(module).__name__[-2])
    _check_dimensions(module, shape, dimensions + 1)
    return dimensions


def _average_pool(module: Any, shape: Shape) -> Affine:
    dimensions = _pooled_dimensions(module, shape)
    padding = _each(module.padding, dimensions)
    _refuse(
        module,
        ceil_mode=module.ceil_mode,
        count_include_pad=any(padding) and not module.count_include_pad,
        divisor_override=getattr(module, "divisor_override", None) is not None,
    )
    kernel = _each(module.kernel_size, dimensions)
    return mean_over(shape, kernel, _each(module.stride, dimensions), padding)


def _adaptive_average_pool(module: Any, shape: Shape) -> Affine:
    given, sizes = module.output_size, shape[1:]
    dimensions = _pooled_dimensions(module, shape)
    outputs = given if isinstance(given, (tuple, list)) else (given,) * dimensions
    wanted = [
        size if output is None else output for output, size in zip(outputs, sizes, strict=True)
    ]
    _refuse(
        module,
        output_size=any(size % output for size, output in zip(sizes, wanted, strict=True)),
    )
    kernel = [size // output for size, output in zip(sizes, wanted, strict=True)]
    return mean_over(shape, kernel, kernel, [0] * len(kernel))


def _max_pool(module: Any, shape: Shape) -> MaxPool:
    _refuse(module, return_indices=module.return_indices)
    dimensions = _pooled_dimensions(module, shape)
    settings = (module.kernel_size, module.stride, module.padding, module.dilation)
    return max_pool(
        shape, *(_each(setting, dimensions) for setting in settings), ceil_mode=module.ceil_mode
    )


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
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), _batch_norm),
    **dict.fromkeys((nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d), _average_pool),
    **dict.fromkeys(
        (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d), _adaptive_average_pool
    ),
    **dict.fromkeys((nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d), _max_pool),
    **dict.fromkeys((nn.Flatten, nn.Unflatten, nn.PixelShuffle, nn.ChannelShuffle), _rearranged),
}
