"""Max-pooling as a choice of one input from each window."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

Shape = tuple[int, ...]
Values = Float[Tensor, "B ..."]
Columns = Float[Tensor, "B K ..."]


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

    def _gathered(self, x: Values) -> Float[Tensor, "B O k"]:
        return F.pad(x.flatten(1), (0, 1), value=-math.inf)[:, self.windows]

    def __call__(self, x: Values) -> Values:
        """The largest number of each window."""
        return self._gathered(x).amax(2).reshape(len(x), *self.output_shape)

    @cached_property
    def multiplicity(self) -> int:
        """The largest number of windows that an input is in."""
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
        self, lower: Values, upper: Values
    ) -> tuple[Int[Tensor, "B O"], Bool[Tensor, "B O"]]:
        """The place of each window's likely winner, and whether it wins for all inputs between."""
        best = self._gathered(lower).max(2, keepdim=True)
        others = self._gathered(upper).scatter(2, best.indices, -math.inf).amax(2)
        places = self.windows.expand(len(lower), -1, -1).gather(2, best.indices)
        return places[..., 0], best.values[..., 0] > others

    def chosen(self, columns: Columns, places: Tensor, certain: Tensor) -> Columns:
        """The numbers at the places of certain winners, and zeros elsewhere."""
        padded = F.pad(columns.flatten(2), (0, 1))
        picked = padded.gather(2, places[:, None].expand(-1, padded.shape[1], -1))
        return torch.unflatten(picked * certain[:, None], 2, self.output_shape)

    def columnwise(self, columns: Columns) -> Columns:
        """The largest number of each window, in every column."""
        return torch.unflatten(self(columns.flatten(0, 1)), 0, columns.shape[:2])

    def touched(self, windows: Bool[Tensor, "B O"]) -> Bool[Tensor, "B ..."]:
        """Mark the inputs that are in one of the marked windows."""
        hits = torch.zeros(len(windows), math.prod(self.input_shape) + 1).to(self.windows)
        index = self.windows.flatten().expand(len(windows), -1)
        hits.scatter_add_(1, index, windows.repeat_interleave(self.windows.shape[1], 1).to(hits))
        return (hits[:, :-1] > 0).reshape(len(windows), *self.input_shape)


def max_pool(
    shape: Shape, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape, *, ceil_mode: bool
) -> MaxPool:
    """Max-pooling with windows over the last dimensions, in every channel."""
    places = torch.arange(math.prod(shape)).reshape(shape)
    along = zip(kernel, stride, padding, dilation, strict=True)
    for dim, (k, step, pad, apart) in enumerate(along, start=1):
        reach = apart * (k - 1) + 1
        room, beyond = shape[dim] + 2 * pad - reach, 0
        if ceil_mode and room % step and (room // step + 1) * step < shape[dim] + pad:
            beyond = step - room % step  # a last window that begins inside and ends outside
        padded = F.pad(places.movedim(dim, -1), (pad, pad + beyond), value=-1)
        places = padded.unfold(-1, reach, step)[..., ::apart].movedim(-2, dim)
    output_shape = tuple(places.shape[: len(shape)])
    windows = places.reshape(math.prod(output_shape), -1)
    outside = windows < 0
    if outside.all(1).any():
        raise TypeError(
            f"no bound is known for max-pooling of examples of shape {shape} with windows that lie "
            "in the padding, whose largest number is -inf; use less padding or dilation"
        )
    return MaxPool(windows.masked_fill(outside, math.prod(shape)), shape, output_shape)
