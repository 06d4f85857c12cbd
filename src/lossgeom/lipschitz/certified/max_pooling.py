"""Max-pooling as a choice of one input from each window."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class MaxPool:
    """The largest number of each window.

    Attributes:
        windows: (O, k) places in the flattened input, and its length where there is padding.
        input_shape: of one example.
        output_shape: of one example, O numbers.
    """

    windows: Int[Tensor, "O k"]
    input_shape: Shape
    output_shape: Shape

    def gathered(self, x: Float[Tensor, "B ..."], padding: float) -> Float[Tensor, "B O k"]:
        """The numbers of each window."""
        flat = torch.nn.functional.pad(x.flatten(1), (0, 1), value=padding)
        return flat[:, self.windows]

    def __call__(self, x: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
        """The largest number of each window."""
        return self.gathered(x, -math.inf).amax(2).reshape(len(x), *self.output_shape)

    @cached_property
    def multiplicity(self) -> int:
        """In how many windows an input is at most."""
        counts = self.windows.flatten().bincount(minlength=math.prod(self.input_shape) + 1)
        return int(counts[:-1].max())

    @property
    def norm(self) -> float:
        """The largest norm of a Jacobian, or of an average of them.

        Its rows are weights of the window's inputs that sum to 1, its columns therefore sum to the
        multiplicity at most, and ||P||_2^2 <= ||P||_1 ||P||_inf.
        """
        return math.sqrt(self.multiplicity)

    @property
    def difference_norm(self) -> float:
        """The largest norm of a difference of two Jacobians.

        Without overlap the difference has orthogonal rows, the difference of two points of a
        simplex each, which is sqrt(2) long at most.
        """
        return math.sqrt(2) if self.multiplicity == 1 else 2 * self.norm

    def winners(
        self, lower: Float[Tensor, "B ..."], upper: Float[Tensor, "B ..."]
    ) -> tuple[Int[Tensor, "B O"], Bool[Tensor, "B O"]]:
        """The place of each window's likely winner, and whether it wins for all inputs between."""
        least, largest = self.gathered(lower, -math.inf), self.gathered(upper, -math.inf)
        best = least.max(2)
        others = largest.scatter(2, best.indices[..., None], -math.inf).amax(2)
        places = self.windows.expand(len(lower), -1, -1).gather(2, best.indices[..., None])
        return places[..., 0], best.values > others

    def chosen(
        self, columns: Float[Tensor, "B K ..."], places: Tensor, certain: Tensor
    ) -> Float[Tensor, "B K ..."]:
        """The numbers at the places of certain winners, and zeros elsewhere."""
        padded = torch.nn.functional.pad(columns.flatten(2), (0, 1))
        index = places[:, None].expand(-1, padded.shape[1], -1)
        picked = padded.gather(2, index) * certain[:, None]
        return torch.unflatten(picked, 2, self.output_shape)

    def columnwise(self, columns: Float[Tensor, "B K ..."]) -> Float[Tensor, "B K ..."]:
        """The largest number of each window, in every column."""
        return torch.unflatten(self(columns.flatten(0, 1)), 0, columns.shape[:2])

    def touched(self, windows: Bool[Tensor, "B O"]) -> Bool[Tensor, "B ..."]:
        """Which inputs are in one of some windows."""
        n = math.prod(self.input_shape)
        hits = torch.zeros(len(windows), n + 1, dtype=torch.float64, device=windows.device)
        index = self.windows.flatten().expand(len(windows), -1)
        hits.scatter_add_(1, index, windows.repeat_interleave(self.windows.shape[1], 1).double())
        return (hits[:, :-1] > 0).reshape(len(windows), *self.input_shape)


def max_pool(
    shape: Shape,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    *,
    ceil_mode: bool,
) -> MaxPool:
    """Windows over the last dimensions, in every channel."""
    channels, *sizes = shape
    along = [
        _windows(*settings, ceil_mode)
        for settings in zip(sizes, kernel, stride, padding, dilation, strict=True)
    ]
    places = reduce(_combined, zip(along, sizes, strict=True), torch.arange(channels)[:, None])
    outside = places < 0
    if outside.all(1).any():
        raise TypeError(
            f"no bound is known for max-pooling of examples of shape {shape} with windows that lie "
            "in the padding, whose largest number is -inf; use less padding or dilation"
        )
    places = places.masked_fill(outside, math.prod(shape))
    return MaxPool(places, shape, (channels, *(len(windows) for windows in along)))


def _windows(
    size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool
) -> Tensor:
    """(outputs, kernel): places along one dimension, -1 outside of it."""
    room = size + 2 * padding - dilation * (kernel - 1) - 1
    outputs = room // stride + 1
    if ceil_mode and room % stride and outputs * stride < size + padding:
        outputs += 1  # a last window that begins inside and ends outside
    places = torch.arange(outputs)[:, None] * stride - padding + torch.arange(kernel) * dilation
    return places.masked_fill((places < 0) | (places >= size), -1)


def _combined(places: Tensor, dimension: tuple[Tensor, int]) -> Tensor:
    """Windows over one more dimension; -1 stays -1."""
    windows, size = dimension
    there = (places[:, None, :, None] >= 0) & (windows[None, :, None, :] >= 0)
    combined = places[:, None, :, None] * size + windows[None, :, None, :]
    flat = torch.where(there, combined, -1)
    return flat.flatten(2).flatten(0, 1)
