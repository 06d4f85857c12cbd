"""A number that is known from both sides."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.messages.reprs import short


@dataclass(frozen=True, eq=False)
class Bracket:
    """A number, or one for each example, that is known to lie between two others.

    Attributes:
        lower: at most the number, such as what was reached at points that were found.
        upper: at least the number: certified.

    >>> import torch
    >>> bracket = Bracket(torch.tensor([1.0, 0.0]), torch.tensor([2.0, 0.0]))
    >>> bracket.max, bracket.tightness.tolist()
    ((1.0, 2.0), [0.5, 1.0])
    >>> Bracket.between(0.5, 2.0)
    Bracket(lower=0.5, upper=2)
    """

    lower: Float[Tensor, "*N"]
    upper: Float[Tensor, "*N"]

    __repr__ = short

    @classmethod
    def between(cls, lower: float, upper: float) -> Bracket:
        """A single number between two others."""
        ends = torch.tensor([lower, upper], dtype=torch.float64)
        return cls(ends[0], ends[1])

    @classmethod
    def exactly(cls, number: float) -> Bracket:
        """A single number that is known."""
        return cls.between(number, number)

    @property
    def max(self) -> tuple[float, float]:
        """The bounds of the largest of the numbers."""
        return self.lower.max().item(), self.upper.max().item()

    @property
    def tightness(self) -> Float[Tensor, "*N"]:
        """Lower divided by upper: 1 where the number is known, and where both are zero."""
        return torch.where(self.upper > 0, self.lower / self.upper, 1.0)
