"""A bound beside what it bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from lossgeom.bounds.bound import Bound
from lossgeom.messages.reprs import short


@dataclass(frozen=True)
class Row:
    """A bound beside the quantity that it bounds, or what there is to give for it.

    Attributes:
        name: what is bounded, or by which form of a theorem.
        bound: ``None`` where there is none.
        measured: the quantity itself; ``None`` where nothing measures it here.
        how: how that was measured, and so on which side of the truth it may be.
        change: what would have to change for the bound to say more.
        missing: what there is to give where there is no bound, or why none is known.
        family: what is bounded, and where the theorem is from.
        new: whether it is about new data.
        unit: of bound and measured.

    >>> bound = Bound(3.0, "an error", 0.95, {}, (), "A theorem", terms={"fit": 0.5, "slope": 2.5})
    >>> row = Row("everywhere", bound, 0.25)
    >>> row.tightness, row.dominant, row.vacuous
    (12.0, 'slope (83%)', True)
    >>> print(*row.said)
    vacuous, it is at most 1 in any case: slope would have to fall from 2.5 to 0.5
    """

    name: str = ""
    bound: Bound | None = field(default=None, repr=False)
    measured: float | None = None
    how: str = field(default="", repr=False)
    change: str = field(default="", repr=False)
    missing: str = ""
    family: str = ""
    new: bool = False
    unit: str = field(default="", repr=False)

    __repr__ = short

    @property
    def title(self) -> str:
        """Family and name."""
        return f"{self.family}: {self.name}"

    @property
    def kind(self) -> str:
        """Whether the bound is certified, an estimate of one, or missing."""
        if self.bound is None:
            return "missing"
        return "certified" if self.bound.certified else "estimate"

    @property
    def vacuous(self) -> bool | None:
        """Whether the bound says no more than is known without it; None where nothing is known."""
        if self.bound is None or (math.isinf(self.bound.trivial) and not self.bound.vacuous):
            return None
        return self.bound.vacuous

    @property
    def tightness(self) -> float | None:
        """Bound over measured, of a lower bound the inverse: 1 where it is attained."""
        if self.bound is None or self.measured is None:
            return None
        large, small = self.bound.value, self.measured
        if self.bound.side == "lower":
            large, small = small, max(large, 0)
        if small == 0:
            return 1.0 if large == 0 else math.inf
        return large / small

    @property
    def dominant(self) -> str:
        """The largest of several terms that the value is the sum of, with its share of all."""
        terms = {} if self.bound is None else self.bound.terms
        total = sum(map(abs, terms.values()))
        if len(terms) < 2 or not total > 0:
            return ""
        name = max(terms, key=lambda term: abs(terms[term]))
        return f"{name} ({abs(terms[name]) / total:.0%})"

    @property
    def cells(self) -> list[str]:
        """The row of a table: name, bound, kind, measured, tightness, vacuous, largest term."""
        if self.bound is None:
            return [self.name, "-", self.kind, *"----"]
        value = f"{'<=' if self.bound.side == 'upper' else '>='} {shown(self.bound.value)}"
        numbers = (self.measured, self.tightness)
        measured, times = ("-" if number is None else shown(number) for number in numbers)
        vacuous = {True: "yes", False: "no", None: "not judged"}[self.vacuous]
        return [self.name, value, self.kind, measured, times, vacuous, self.dominant or "-"]

    @property
    def said(self) -> list[str]:
        """What is missing, how the quantity was measured, and what would have to change."""
        if self.bound is None:
            return [f"missing: {self.missing}"]
        change = self.change
        if self.bound.vacuous:
            vacuous = f"vacuous, {self.bound.known}"
            change = f"{vacuous}: {change or falling(self.bound)}".removesuffix(": ")
        return [said for said in (self.how and f"measured: {self.how}", change) if said]


def shown(number: float) -> str:
    """Write a number with three digits, or with more if it is below 1 and would be written as 1.

    >>> shown(0.12345), shown(7216.3), shown(1.5e7), shown(0.99987)
    ('0.123', '7,220', '1.5e+07', '0.9999')
    """
    digits = 3
    while abs(number) < 1 and f"{abs(number):.{digits}g}" == "1":
        digits += 1
    rounded = f"{number:.{digits}g}"
    return f"{float(rounded):,.0f}" if 1000 <= abs(number) < 1e6 else rounded


def falling(bound: Bound) -> str:
    """Tell by how much the worst term of a vacuous bound would have to fall, or all of them.

    >>> small = Bound(9.0, "an error", 0.95, {}, (), "A theorem", terms={"a": 4.5, "b": 4.5})
    >>> falling(small)
    'all of it would have to fall by a factor of 9'
    """
    sign = 1 if bound.side == "upper" else -1
    costs = {name: sign * term for name, term in bound.terms.items()}
    excess = sign * (bound.value - bound.trivial)
    name = max(costs, key=costs.__getitem__, default="")
    if not name:
        return ""
    if costs[name] > excess:
        return f"{name} would have to fall from {costs[name]:.3g} to {costs[name] - excess:.3g}"
    if bound.side == "upper" and bound.trivial > 0 and math.isfinite(bound.value):
        return f"all of it would have to fall by a factor of {bound.value / bound.trivial:.3g}"
    return ""
