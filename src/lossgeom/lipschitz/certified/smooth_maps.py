"""Smooth maps of groups of numbers, as what they are at a point plus what deviates on a box."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.linalg.arithmetic import lengths
from lossgeom.linalg.operator_norms import EPSILON

ROUNDING = 2e-11  # error of a sum of 10^5 numbers at most, relative to that of their magnitudes
Columns = Float[Tensor, "B K G n"]
Groups = Float[Tensor, "B G n"]
Results = Float[Tensor, "B G m"]  # of each group, as many as there are
Parts = Float[Tensor, "B G P"]


@dataclass(frozen=True, eq=False)
class Box:
    """What is known of G groups of n numbers, each group in P parts.

    Attributes:
        value: a point, at which the map is expanded.
        lower: of all numbers.
        upper: of all numbers.
        distance: upper bounds of how far a part can be from the point, in l2.
        sizes: upper bounds of the norm of the part's Jacobian in the input of the network.
    """

    value: Groups
    lower: Groups
    upper: Groups
    distance: Parts
    sizes: Parts

    def magnitudes(self) -> Groups:
        """The largest magnitudes."""
        return torch.maximum(-self.lower, self.upper)


@dataclass(frozen=True, eq=False)
class Known:
    """A known linear map of each group.

    Attributes:
        linear: the product with it, of columns.
        absolute: an upper bound of the product with its magnitudes, of columns v >= 0.
        norm: upper bound of its norm, for each example.
        absolute_norm: upper bound of the norm of the magnitudes that `linear` adds up.
        terms: how many numbers it adds up.
    """

    linear: Callable[[Columns], Columns]
    absolute: Callable[[Columns], Columns]
    norm: Float[Tensor, " B"]
    absolute_norm: Float[Tensor, " B"]
    terms: int

    @property
    def rounding(self) -> float:
        """The error of `linear`, relative to the magnitudes."""
        return 8 * (self.terms + 8) * EPSILON


@dataclass(frozen=True, eq=False)
class Linearised(Known):
    r"""Derivatives on a box, :math:`D = D_0 + B \, \mathrm{diag}(a) T \mathrm{diag}(b) A`.

    T is unknown, of norm at most 1, and all have a block for each group. What is known is D_0, but
    `absolute` and `norm` hold for all D.

    Attributes:
        steepness: upper bounds of the norms of D as a function of one part.
        spread: upper bound of ||D - D_0||.
        out: a, of the results.
        into: b, of the arguments.
        bend: from the lengths of the columns of a derivative Y in the results, times B, to weights
            w with abs(u^T Y D'[h] k) at most the product of the lengths of diag(w)^1/2 A h and
            diag(w)^1/2 A k, for unit u and every second derivative D'.
        magnitude: the numbers that results are rounded relative to.
        lower: of the results.
        upper: of the results.
        inner: A; ``None`` for the identity.
        outer: B; ``None`` for the identity.
    """

    steepness: Parts
    spread: Float[Tensor, " B"]
    out: Results
    into: Groups
    bend: Callable[[Groups], Groups]
    magnitude: Results
    lower: Results
    upper: Results
    inner: Known | None = None
    outer: Known | None = None


def evenly(curvature: Groups) -> Callable[[Groups], Groups]:
    """The bend of a second derivative that is as large in all directions of a group."""
    return lambda columns: lengths(columns, 2)[..., None] * curvature


class SmoothMap(ABC):
    """A map of each group of numbers by itself, examples being of shape (G, n)."""

    @property
    def parts(self) -> tuple[int, ...] | None:
        """How many numbers of a group there are in each of its parts; ``None`` for one part."""
        return None

    @abstractmethod
    def __call__(self, x: Groups) -> Results:
        """The results."""

    @abstractmethod
    def on(self, box: Box) -> Linearised:
        """What is known of the derivatives on a box."""

    def split(self, x: Float[Tensor, ...]) -> tuple[Tensor, ...]:
        """The parts, along the last dimension."""
        return (x,) if self.parts is None else torch.split(x, list(self.parts), -1)

    def lengths(self, x: Groups) -> Parts:
        """The length of each part."""
        return torch.stack([lengths(part, -1) for part in self.split(x)], -1)
