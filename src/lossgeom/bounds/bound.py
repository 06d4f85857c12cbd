"""A number that a theorem promises, with all that it rests on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from lossgeom.reprs import short

Status = Literal["checked", "declared", "unverifiable"]


@dataclass(frozen=True)
class Assumption:
    """Something that a theorem needs.

    Attributes:
        statement: what has to hold.
        status: ``"checked"`` where the numbers at hand show it, ``"declared"`` where the caller
            vouches for it, and ``"unverifiable"`` where nobody can know it from data.
    """

    statement: str
    status: Status


@dataclass(frozen=True)
class Bound:
    """An upper bound that a theorem promises; ``print`` tells it with its assumptions.

    Attributes:
        value: what the quantity is at most; NaN where the bound could not be computed.
        quantity: what is bounded, in words.
        confidence: the probability that the bound holds, over the data and all that was drawn.
        inputs: the numbers that it was computed from, by name.
        assumptions: all that it rests on.
        source: the theorem.
        trivial: what the quantity is at most without any theorem.

    >>> convex = Assumption("the loss is convex", "declared")
    >>> bound = Bound(0.25, "the error", 0.95, {"N": 100}, (convex,), "A theorem (2026)")
    >>> bound.vacuous
    False
    >>> print(bound)
    the error is at most 0.25, with probability 0.95
      computed from N = 100
      declared: the loss is convex
      source: A theorem (2026)
    """

    value: float
    quantity: str = field(repr=False)
    confidence: float
    inputs: Mapping[str, float] = field(repr=False)
    assumptions: tuple[Assumption, ...] = field(repr=False)
    source: str = field(repr=False)
    trivial: float = 1.0

    __repr__ = short

    @property
    def vacuous(self) -> bool:
        """Whether it says no more than is known without it."""
        return not self.value < self.trivial

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        vacuous = f": vacuous, it is at most {self.trivial:g} in any case" if self.vacuous else ""
        yield (
            f"{self.quantity} is at most {self.value:.4g}, with probability "
            f"{self.confidence:.4g}{vacuous}"
        )
        numbers = ", ".join(f"{name} = {value:.6g}" for name, value in self.inputs.items())
        yield f"  computed from {numbers}"
        for status in get_args(Status):
            yield from (
                f"  {status}: {one.statement}" for one in self.assumptions if one.status == status
            )
        yield f"  source: {self.source}"
