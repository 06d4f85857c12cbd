"""The search for the least multiple of an update that raises a loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

from lossgeom.estimate import Estimate
from lossgeom.messages.checks import check_at_least, check_number
from lossgeom.stability.undefined import UndefinedError

RTOL = 2.0**-4
LARGEST = 2.0**20  # multiples that are tried
SMALLEST = 2.0**-20
STRIDE = 8.0  # by which one multiple may exceed the one before
Rises = Callable[[Sequence[float]], Sequence[float]]  # of the loss, at multiples
Point = tuple[float, float]  # a multiple, and how far the loss rises there
NOWHERE: Point = (0.0, 0.0)
NEVER: Point = (math.inf, math.inf)
SEEN = 4.0  # standard deviations of rounding that a change of the loss has to exceed


@dataclass(frozen=True)
class CriticalStep:
    """The least multiple of an update that raises the loss, as far as a search has seen.

    Attributes:
        value: between ``low`` and ``high``; infinite if the loss was never seen to rise, and 0 if
            the update goes up from where it starts.
        low: the largest multiple below the value at which the loss was seen to be lower; or 0.
        high: the least at which it was seen to be higher, NaN or infinite; or infinity.
        passes: forward passes spent, with that of the loss itself and those for its rounding.
        converged: whether the interval from ``low`` to ``high`` meets the tolerance.
    """

    value: float
    low: float
    high: float
    passes: int
    converged: bool

    @property
    def estimate(self) -> Estimate:
        """The value with whether it has converged."""
        return Estimate(self.value, converged=self.converged)


@dataclass(frozen=True)
class Effort:
    """How finely to search, from where, and for how long.

    Attributes:
        rtol: of the interval, relative to its upper end.
        start: a multiple to start from, if there is one.
        max_passes: forward passes to spend.
    """

    rtol: float
    start: float | None
    max_passes: int

    def __post_init__(self) -> None:
        check_number("rtol", self.rtol, 0, 1)
        check_at_least(1, max_passes=self.max_passes)
        if self.start is not None:
            check_number("start", self.start, 0)

    def search(self, rises: Rises, noise: float, passes: int) -> CriticalStep:
        """What is found of rises, with what is none, after some passes already."""
        return Search(rises, noise, self.rtol).run(self.start, self.max_passes, passes)


@dataclass
class Search:
    """The multiples that were tried, as far as they bound the one that is looked for.

    Attributes:
        rises: of the loss at some multiples.
        noise: what is no rise and no fall.
        rtol: of the interval that is small enough.
        low, lower: the two largest multiples below ``high`` that do not raise the loss.
        fall, fell: the two largest below ``high`` that lower it, each with its rise.
        high, higher: the two least that raise it.
    """

    rises: Rises
    noise: float
    rtol: float
    low: float = 0.0
    lower: float = 0.0
    fall: Point = NOWHERE
    fell: Point = NOWHERE
    high: Point = NEVER
    higher: Point = NEVER

    def run(self, start: float | None, most: int, passes: int = 0) -> CriticalStep:
        """Try multiples, at most so many, and return what was found, with passes spent before."""
        tried = 0
        for several in self.multiples(start):
            multiples = several[: most - tried]
            if not multiples:
                break
            self._take(list(zip(multiples, self.rises(multiples), strict=True)))
            tried += len(multiples)
        return self.found(passes + tried)

    def _take(self, points: list[Point]) -> None:
        """Note down multiples in ascending order; what is beyond a rise matters if it rises."""
        if points[0][1] > self.noise:
            points = [point for point in reversed(points) if point[1] > self.noise]
        for point in points:
            self._take_one(point)

    def _take_one(self, point: Point) -> None:
        s = point[0]
        if point[1] > self.noise:
            self.higher, self.high = self.high, point
            self.low = self.low if self.low < s else self.fall[0]
            return
        if s > self.low:
            self.lower, self.low = self.low, s
        if point[1] < -self.noise:
            self.fell, self.fall = self.fall, point

    def within(self, s: float) -> bool:
        """Whether the interval from a multiple to the least that raises the loss is small."""
        return s > 0 and s >= self.high[0] * (1 - self.rtol)

    def multiples(self, start: float | None) -> Iterator[tuple[float, ...]]:
        """Yield what to try next, given what was seen so far, until the interval is small.

        From a start, both ends of an interval around it are tried at once.
        """
        stride = 2.0 if start is None else 1 + self.rtol / 2
        above = 1.0 if start is None else start * (1 + self.rtol / 2)
        yield (above,) if start is None else (above * (1 - 0.99 * self.rtol), above)
        while math.isinf(self.high[0]) or self.low == 0:
            if self.low >= LARGEST or self.high[0] <= SMALLEST:
                return
            yield (self._above(stride) if self.low else self._below(stride),)
            stride = STRIDE
        for tried in count(1):
            if self.within(self.low):
                break
            yield ((self.low + self.high[0]) / 2 if tried % 3 == 0 else self._between(),)
        if not self.within(self.fall[0]):  # but what is below is rounding: is it, everywhere?
            yield (self.high[0] * (1 - 0.9 * self.rtol),)

    def _above(self, stride: float) -> float:
        """A multiple above all that were tried, where the secant points."""
        here, beside = self.low, 1 + self.rtol / 3
        if here > self.fall[0] > 0:  # so near the one that is looked for that nothing is seen
            return here * min(beside if self.lower == self.fall[0] else here / self.lower, STRIDE)
        root = self._root(self.fell, self.fall)
        wanted = here * stride if root is None else root * beside
        return min(max(wanted, here * beside), here * STRIDE)

    def _below(self, stride: float) -> float:
        """A multiple below all that were tried, where the secant points."""
        here, beside = self.high[0], 1 - self.rtol / 3
        root = self._root(self.high, self.higher)
        wanted = here / stride if root is None else root * beside
        return max(min(wanted, here * beside), here / STRIDE)

    def _between(self) -> float:
        """A multiple beside the root of the secant, on the side where the interval is longer."""
        low, high = self.low, self.high[0]
        root = self._root(self.fall, self.high)
        if root is None or not low < root < high:
            return math.sqrt(low * high)
        side = -1 if root - low > high - root else 1
        margin = (high - low) / 20
        return min(max(root * (1 + side * self.rtol / 3), low + margin), high - margin)

    def _root(self, a: Point, b: Point) -> float | None:
        """The root of the secant of rise / s through two points, if they have one."""
        if not all(s > 0 and math.isfinite(rise) for s, rise in (a, b)):
            return None
        (s, p), (t, q) = ((s, rise / s) for s, rise in (a, b))
        root = s - p * (t - s) / (q - p) if p != q else 0.0
        return root if root > 0 and (q - p) * (t - s) > 0 else None

    def found(self, passes: int) -> CriticalStep:
        """What was found."""
        low, high = self.fall[0], self.high[0]
        if math.isinf(high):
            if not low:
                raise UndefinedError(
                    f"no multiple of the update up to {self.low:.3g} changes the loss by more "
                    f"than its rounding, {self.noise:.2g}"
                )
            return CriticalStep(high, low, high, passes, self.low >= LARGEST)
        if not low:  # within rounding it may have fallen before
            below = self._root(self.high, self.higher) or 0.0
            return CriticalStep(min(below, high), 0.0, high, passes, high <= SMALLEST)
        root = self._root(self.fall, self.high)
        value = (low + high) / 2 if root is None else min(max(root, low), high)
        return CriticalStep(value, low, high, passes, self.within(low))
