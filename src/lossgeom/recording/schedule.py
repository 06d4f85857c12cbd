"""Schedules, which say at which steps to measure."""

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from numbers import Integral

from lossgeom.distributed import Ranks

Schedule = Callable[[int], bool]


@dataclass(frozen=True)
class Every:
    """Every n-th step, starting with step 0.

    >>> [step for step in range(10) if Every(4)(step)]
    [0, 4, 8]
    """

    n: int

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"expected to measure every n >= 1 steps, got {self.n}")

    def __call__(self, step: int) -> bool:
        """Whether to measure at this step."""
        return step % self.n == 0


@dataclass(frozen=True)
class Logarithmic:
    """Step 0, and evenly spaced steps on a logarithmic axis.

    >>> [step for step in range(101) if Logarithmic(per_decade=3)(step)]
    [0, 1, 2, 5, 10, 22, 46, 100]
    """

    per_decade: int = 10

    def __post_init__(self) -> None:
        if self.per_decade < 1:
            raise ValueError(f"expected at least one step per decade, got {self.per_decade}")

    def __call__(self, step: int) -> bool:
        """Whether to measure at this step."""
        if step == 0:
            return True
        nearest = round(self.per_decade * math.log10(step))
        return step == round(10 ** (nearest / self.per_decade))


@dataclass(frozen=True)
class At:
    """The steps of a list.

    >>> [step for step in range(10) if At([2, 3])(step)]
    [2, 3]
    """

    steps: Collection[int]

    def __call__(self, step: int) -> bool:
        """Whether to measure at this step."""
        return step in self.steps


def is_due(due: Schedule, step: int, ranks: Ranks) -> bool:
    """Whether to measure at a step; what a function says of it is what it says on rank 0."""
    if isinstance(due, (Every, Logarithmic, At)):
        return due(step)
    return ranks.from_first(ranks.together(lambda: bool(due(step))))


def as_schedule(every: int | Collection[int] | Schedule) -> Schedule:
    """A number of steps, a list of steps, or a function of the step.

    Raises:
        TypeError: for anything else.
        ValueError: for a number of steps less than 1.

    >>> as_schedule(50)
    Every(n=50)
    """
    if isinstance(every, int) and not isinstance(every, bool):
        return Every(every)
    if callable(every):
        return every
    steps = frozenset(every) if isinstance(every, Iterable) else [every]
    wrong = [step for step in steps if isinstance(step, bool) or not isinstance(step, Integral)]
    if wrong:
        raise TypeError(
            "expected every= as a number of steps, a list of the numbers of steps, or a schedule; "
            f"got {every!r}"
        )
    return At(steps)
