"""A number that a theorem promises, with all that it rests on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from lossgeom.messages.reprs import short

Status = Literal["checked", "declared", "unverifiable"]
Side = Literal["upper", "lower"]
SAID = {"declared": "you declare"}  # by a text
AT = {"upper": "at most", "lower": "at least"}
ESTIMATED = "an estimate, because not every number in it is certified"


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
    """A bound that a theorem promises; ``print`` tells it with its assumptions.

    Attributes:
        value: what the quantity is at most, or at least; NaN where the bound could not be computed.
        quantity: what is bounded, in words.
        confidence: the probability that the bound holds, over the data and all that was drawn.
        inputs: the numbers that it was computed from, by name.
        assumptions: all that it rests on.
        source: the theorem.
        trivial: what the quantity is at most, or at least, without any theorem.
        trivial_for: what a bound that is no lower, or no higher, is no better than, in words that
            say how good that is, if the trivial value does not hold in any case.
        headline: the whole in one line, to begin with.
        meanings: what the inputs are, in a few words, by name; others are left out.
        notes: what else to know, such as what may lower it.
        side: whether the value is an upper or a lower bound.
        certified: whether every number that entered is; else the value is an estimate of a bound.
        least: where numbers that entered are known from both sides, the bound that their other ends
            would give: sharper certificates of them can bring the value no farther than that.
        terms: the parts that the value is the sum of, by name.

    >>> convex = Assumption("the loss is convex", "declared")
    >>> bound = Bound(0.25, "the error", 0.95, {"N": 100}, (convex,), "A theorem (2026)")
    >>> bound.vacuous
    False
    >>> print(bound)
    the error is at most 0.25, with probability 0.95
      N = 100
      you declare: the loss is convex
      source: A theorem (2026)
    """

    value: float
    quantity: str = field(repr=False)
    confidence: float
    inputs: Mapping[str, float] = field(repr=False)
    assumptions: tuple[Assumption, ...] = field(repr=False)
    source: str = field(repr=False)
    trivial: float = 1.0
    headline: str = field(default="", repr=False)
    meanings: Mapping[str, str] = field(default_factory=dict, repr=False)
    notes: tuple[str, ...] = field(default=(), repr=False)
    side: Side = field(default="upper", repr=False)
    certified: bool = field(default=True, repr=False)
    least: float | None = field(default=None, repr=False)
    terms: Mapping[str, float] = field(default_factory=dict, repr=False)
    trivial_for: str = field(default="", repr=False)

    __repr__ = short

    def __post_init__(self) -> None:
        meanings = {name: said for name, said in self.meanings.items() if name in self.inputs}
        object.__setattr__(self, "meanings", meanings)

    @property
    def vacuous(self) -> bool:
        """Whether it says no more than is known without it."""
        if self.side == "lower":
            return not self.value > self.trivial
        return not self.value < self.trivial

    @property
    def known(self) -> str:
        """What is known without it."""
        if self.trivial_for:
            return f"no better than {self.trivial_for}"
        return f"it is {AT[self.side]} {self.trivial:g} in any case"

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        if self.headline:
            yield self.headline
        if math.isnan(self.value):
            yield from () if self.headline else (f"no bound on {self.quantity}",)
            return
        at = AT[self.side]
        vacuous = f": vacuous, {self.known}" if self.vacuous else ""
        yield (
            f"{self.quantity} is {at} {self.value:.4g}, with probability "
            f"{self.confidence:.4g}{vacuous}"
        )
        yield from () if self.certified else (f"  {ESTIMATED}",)
        yield from (f"  of which {name}: {term:.4g}" for name, term in self.terms.items())
        if self.least is not None and f"{self.least:.4g}" != f"{self.value:.4g}":
            yield f"  sharper certificates of the same numbers may move it to {self.least:.4g}"
        yield from (f"  note: {note}" for note in self.notes)
        for name, value in self.inputs.items():
            meaning = self.meanings.get(name)
            yield f"  {name} = {value:.6g}" + (f": {meaning}" if meaning else "")
        for status in get_args(Status):
            yield from (
                f"  {SAID.get(status, status)}: {one.statement}"
                for one in self.assumptions
                if one.status == status
            )
        yield f"  source: {self.source}"
