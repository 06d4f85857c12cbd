"""Affine layers as maps of one example, with bounds of their norms."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from lossgeom.linalg.operator_norms import EPSILON, convolution_norm, dense_norm

SMALL = 2**20  # numbers of the largest convolution that is written out as a matrix
VANISHING = 1e-250  # a sum of squares up to which terms may have come out as 0
LARGE = 2**22  # numbers of the largest weight whose norm is computed once for each example
CONVOLVE = (F.conv1d, F.conv2d, F.conv3d)
SPREAD = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Affine:
    """``x -> A x + b`` for one example, with A given by its weight.

    Attributes:
        kind: what the weight means.
        weight: of the layer.
        bias: broadcast against the output.
        magnitude: what bias was summed from, in absolute values, to judge its rounding by.
        input_shape: of one example.
        through: ``(weight, inputs (K, *input_shape))`` to ``A x`` for another weight in its place.
        fourier_norm: an upper bound of the norm of a convolution with a weight.
    """

    kind: Literal["dense", "convolution", "scale", "picking"]
    weight: Tensor
    bias: Tensor
    magnitude: Tensor
    input_shape: Shape
    through: Callable[[Tensor, Tensor], Tensor]
    fourier_norm: Callable[[Tensor], float] | None = None

    def __call__(self, x: Float[Tensor, " ..."]) -> Float[Tensor, " ..."]:
        """The result A x + b, for x with any leading dimensions."""
        return self.linear(x) + self.bias

    def linear(self, x: Float[Tensor, " ..."]) -> Float[Tensor, " ..."]:
        """The product A x."""
        return self._apply(self.weight, x)

    def absolute(self, x: Float[Tensor, " ..."]) -> Float[Tensor, " ..."]:
        """|A| x, with the absolute values of the entries of A."""
        return self._apply(self.weight.abs(), x)

    def _apply(self, weight: Tensor, x: Tensor) -> Tensor:
        lead = x.shape[: x.ndim - len(self.input_shape)]
        flat = self.through(weight, x.reshape(math.prod(lead), *self.input_shape))
        return flat.reshape(*lead, *flat.shape[1:])

    def row_norms(self, scale: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
        """Lengths of the rows of A diag(scale)."""
        size, largest = _size(self.weight), _size(scale)
        squares = self._apply((self.weight / size).square(), (scale / largest).square())
        sums = self.absolute(scale)  # never less, and exact where squares vanish
        return torch.where(squares > VANISHING, squares.sqrt() * (largest * size), sums)

    @cached_property
    def rounding(self) -> float:
        """Twice the relative rounding error of a sum over the inputs of one output."""
        return 2 * (self.weight[0].numel() + 2) * EPSILON

    @cached_property
    def _ones(self) -> Tensor:
        return torch.ones(1, *self.input_shape).to(self.weight)

    @cached_property
    def column_sums(self) -> Float[Tensor, " ..."]:
        """The column sums of |A|, over the outputs."""
        with torch.enable_grad():
            x = self._ones.clone().requires_grad_()
            (sums,) = torch.autograd.grad(self.absolute(x).sum(), x)
        return sums[0]

    def schur_norm(self, scale: Float[Tensor, "B ..."]) -> Float[Tensor, " B"]:
        """sqrt(||A S||_1 ||A S||_inf), at least the norm even of |A S|; S = diag(scale) >= 0."""
        rows = self.absolute(scale).flatten(1).amax(1)
        columns = (scale * self.column_sums).flatten(1).amax(1)
        return rows.sqrt() * columns.sqrt()

    @cached_property
    def absolute_norm(self) -> float:
        """An upper bound of the norm of |A|."""
        return self.schur_norm(self._ones).item()

    @cached_property
    def norm(self) -> float:
        """The smallest of the upper bounds of the norm of A."""
        bounds = [self.absolute_norm]  # exact for one number of each channel, and for picking
        if self.kind == "dense":
            bounds.append(dense_norm(self.weight).item())
        if self.fourier_norm is not None:
            bounds.append(self.fourier_norm(self.weight))
            n = math.prod(self.input_shape)
            if n * self.linear(self._ones).numel() <= SMALL:
                columns = self.linear(torch.eye(n).to(self.weight).reshape(n, *self.input_shape))
                bounds.append(dense_norm(columns.reshape(n, -1)).item())
        return min(bounds)

    def scaled_norm(self, scale: Float[Tensor, "B ..."]) -> Float[Tensor, " B"]:
        """Upper bounds of the norm of A diag(d) over all d with |d| <= scale."""
        bound = torch.minimum(self.norm * scale.flatten(1).amax(1), self.schur_norm(scale))
        if self.kind == "dense" and self.weight.numel() <= LARGE:
            rows = torch.split(scale.reshape(-1, 1, scale.shape[-1]), LARGE // self.weight.numel())
            norms = torch.cat([dense_norm(self.weight * some) for some in rows])
            bound = torch.minimum(bound, norms.reshape(len(scale), -1).amax(1))
        return bound


def _size(x: Tensor) -> Tensor:
    """The largest magnitude, or 1 where all are zero."""
    largest = x.abs().amax()
    return torch.where(largest > 0, largest, 1)


def _in_double(weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    weight = weight.detach().double()
    return weight, weight.new_zeros(1) if bias is None else bias.detach().double()


def dense(weight: Tensor, bias: Tensor | None, shape: Shape) -> Affine:
    """A linear layer on the last dimension."""
    weight, bias = _in_double(weight, bias)
    return Affine("dense", weight, bias, bias.abs(), shape, lambda weight, x: F.linear(x, weight))


def convolution(weight: Tensor, bias: Tensor | None, shape: Shape, **settings: Any) -> Affine:
    """A convolution with zero padding, or an average pooling written as one.

    Args:
        weight: as torch's.
        bias: as torch's.
        shape: of one example.
        settings: ``stride``, ``padding``, ``dilation`` and ``groups``, the first three with one
            number for each dimension.
    """
    convolve = CONVOLVE[len(shape) - 2]
    weight, bias = _in_double(weight, bias)
    bias = bias.reshape(-1, *[1] * (len(shape) - 1))
    return Affine(
        "convolution", weight, bias, bias.abs(), shape,
        lambda weight, x: convolve(x, weight, None, **settings),
        partial(convolution_norm, size=shape[1:], **settings),
    )  # fmt: skip


def transposed_convolution(
    weight: Tensor, bias: Tensor | None, shape: Shape, output_padding: Shape, **settings: Any
) -> Affine:
    """The adjoint of a convolution, cut to an output shape, with a bias.

    Its weight is kept as (C_out, C_in / groups, ...), as that of a convolution.

    Args:
        weight: as torch's, (C_in, C_out / groups, ...).
        bias: as torch's.
        shape: of one example.
        output_padding: as torch's.
        settings: as for :func:`convolution`.
    """
    groups = settings["groups"]
    spread: Callable[..., Tensor] = partial(
        SPREAD[len(shape) - 2], output_padding=output_padding, **settings
    )
    weight, bias = _in_double(weight, bias)
    size = tuple(spread(torch.zeros(1, *shape).to(weight), weight).shape[2:])
    bias = bias.reshape(-1, *[1] * (len(shape) - 1))

    def swapped(weight: Tensor) -> Tensor:
        return torch.unflatten(weight, 0, (groups, -1)).transpose(1, 2).flatten(0, 1)

    return Affine(
        "convolution", swapped(weight), bias, bias.abs(), shape,
        lambda weight, x: spread(x, swapped(weight)),
        lambda weight: convolution_norm(swapped(weight), size=size, **settings),
    )  # fmt: skip


def scaling(weight: Tensor, bias: Tensor, magnitude: Tensor, shape: Shape) -> Affine:
    """``weight * x + bias`` with one number for each channel."""
    channels = (math.prod(shape[:1]), *[1] * (len(shape) - 1))
    weight, bias, magnitude = (
        numbers.expand(channels[0]).reshape(channels) for numbers in (weight, bias, magnitude)
    )
    return Affine("scale", weight, bias, magnitude, shape, torch.mul)


def picking(places: Int[Tensor, " M"], shape: Shape, output: Shape) -> Affine:
    """The numbers at some places of the flattened input, in another shape.

    Its Gram matrix is diagonal, with how often each place is picked.
    """
    one, zero = torch.ones(1).to(places.device).double(), torch.zeros(1).to(places.device).double()
    in_order = len(places) == math.prod(shape) and bool((places.diff() == 1).all())

    def through(weight: Tensor, x: Tensor) -> Tensor:
        flat = x.flatten(1) if in_order else x.flatten(1)[:, places]
        return weight * flat.reshape(len(x), *output)

    return Affine("picking", one, zero, zero, shape, through)


def folded(first: Affine, second: Affine) -> Affine | None:
    """The two maps in one layer, where one of them scales channels; ``None`` where they do not fit.

    Only products of single numbers are formed, which do not cancel.
    """
    if second.kind == "scale" and _has_channels(first):
        return replace(
            first,
            weight=first.weight * second.weight.reshape(-1, *[1] * (first.weight.ndim - 1)),
            bias=second.weight * first.bias + second.bias,
            magnitude=second.weight.abs() * first.magnitude + second.magnitude,
        )
    if first.kind == "scale" and _has_channels(second) and second.kind != "scale":
        everywhere = torch.zeros(first.input_shape).to(first.weight)
        return replace(
            second,
            weight=_scaled_inputs(second.weight, first.weight),
            bias=second.linear(everywhere + first.bias) + second.bias,
            magnitude=second.absolute(everywhere + first.magnitude) + second.magnitude,
        )
    return None


def _has_channels(layer: Affine) -> bool:
    """Whether the first dimension of its inputs and outputs is that of its weight."""
    return layer.kind in ("convolution", "scale") or (
        layer.kind == "dense" and len(layer.input_shape) == 1
    )


def _scaled_inputs(weight: Float[Tensor, "O I ..."], channels: Tensor) -> Tensor:
    """The weight of a layer whose input channels, I in each group, are scaled first."""
    groups = channels.numel() // weight.shape[1]
    factors = channels.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))
    return (torch.unflatten(weight, 0, (groups, -1)) * factors).flatten(0, 1)
