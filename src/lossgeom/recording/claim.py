"""A statement of a paper as something that a measurement can confirm or contradict."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Verdict = Literal["shown", "contradicted", "inconclusive"]
Interval = tuple[float, float]
LEVEL = 0.95  # of confidence intervals


@dataclass(frozen=True)
class Claim:
    """An empirical statement, what was measured for it, and the verdict.

    Attributes:
        id: short name, unique within its study.
        statement: the statement in one sentence.
        source: paper and figure, theorem or equation.
        measured: what the statistic is.
        statistic: its median over seeds, a share of seeds or runs, or the worst of all cases.
        interval: its confidence interval; of a statement about every case, the range over seeds.
        per_seed: what was measured, of each seed that has it.
        expected: the range, fixed before the run, in which the statement holds.
        control: a negative control, which must come out contradicted.
        note: what else a reader should know, such as why the verdict is inconclusive.
        every: the statement is about every case, so that one out of the range contradicts it.
        chance: the largest probability of a verdict as clear as this if it is wrong; 1 where none
            is known.

    >>> claim = Claim("a", "grows", "A, Fig. 1", "slope", 2.0, (1.5, 2.5), (1.5, 2.5), (1.0, 9.0))
    >>> claim.verdict, claim.as_expected
    ('shown', True)
    """

    id: str
    statement: str
    source: str
    measured: str
    statistic: float
    interval: Interval
    per_seed: tuple[float, ...]
    expected: Interval
    control: bool = False
    note: str = ""
    every: bool = False
    chance: float = 1.0

    @property
    def verdict(self) -> Verdict:
        """The interval against the expected range: inside, outside, or astride."""
        return judge(self.interval, self.expected, every=self.every)

    @property
    def as_expected(self) -> bool:
        """Whether a claim is shown, or a negative control contradicted."""
        return self.verdict == ("contradicted" if self.control else "shown")

    def to_json(self) -> dict[str, Any]:
        """The fields and the verdict."""
        return {**asdict(self), "verdict": self.verdict, "as_expected": self.as_expected}


def judge(interval: Interval, expected: Interval, *, every: bool = False) -> Verdict:
    """Compare an interval with the range in which a statement holds.

    A confidence interval contradicts it from outside. The range of what was seen contradicts a
    statement about ``every`` case as soon as one end is outside, for that is a counterexample.

    >>> judge((0.9, 1.1), (0.75, 1.25)), judge((0.7, 1.1), (0.75, 1.25)), judge((0, 0.2), (0.75, 1))
    ('shown', 'inconclusive', 'contradicted')
    >>> judge((0.7, 1.1), (0.75, 1.25), every=True)
    'contradicted'
    """
    low, high = interval
    if math.isnan(low) or math.isnan(high):
        return "inconclusive"
    if expected[0] <= low and high <= expected[1]:
        return "shown"
    if every or high < expected[0] or low > expected[1]:
        return "contradicted"
    return "inconclusive"


def chance(interval: Callable[[float], Interval], expected: Interval) -> float:
    r"""The largest probability of a verdict as clear as this if it is wrong.

    An interval of level c misses what it is for with a probability of at most :math:`(1 - c) / 2`
    on either side. So the chance is that of the highest level that leads to the verdict, and twice
    that of a contradicted range with two ends. It is at least 1e-12, and 1 for no verdict.

    Args:
        interval: of any level.
        expected: as in :class:`Claim`.

    >>> round(chance(lambda level: (0.99 - level, 2.0), expected=(0.0, math.inf)), 5)
    0.005
    """
    verdict = judge(interval(LEVEL), expected)
    if verdict == "inconclusive":
        return 1.0
    same, other = math.log((1 - LEVEL) / 2), math.log(1e-12)
    for _ in range(20):
        middle = (same + other) / 2
        if judge(interval(1 - 2 * math.exp(middle)), expected) == verdict:
            same = middle
        else:
            other = middle
    ends = sum(map(math.isfinite, expected)) if verdict == "contradicted" else 1
    return ends * math.exp(same)


def holm(chances: Sequence[float]) -> list[float]:
    """Correct chances for their number, so that one wrong verdict is as unlikely as one alone.

    The k-th smallest of m is multiplied by m - k + 1, and is at least as large as those before it
    (Holm, Scandinavian Journal of Statistics 6, 1979), however they depend on each other.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected, largest = [0.0] * len(chances), 0.0
    for before, i in enumerate(sorted(range(len(chances)), key=lambda i: chances[i])):
        largest = max(largest, min(1.0, (len(chances) - before) * chances[i]))
        corrected[i] = largest
    return corrected


def counted(claims: Sequence[Claim]) -> str:
    """Count the verdicts in words.

    >>> counted([Claim("a", "grows", "A", "slope", 2.0, (1.5, 2.5), (), (1.0, 9.0))])
    '1 of 1 claims shown'
    """
    verdicts = Counter(claim.verdict for claim in claims if not claim.control)
    controls = [claim.as_expected for claim in claims if claim.control]
    parts = [f"{verdicts['shown']} of {verdicts.total()} claims shown"]
    parts += [f"{verdicts[one]} {one}" for one in ("contradicted", "inconclusive") if verdicts[one]]
    if controls:
        parts.append(f"{sum(controls)} of {len(controls)} controls contradicted, as they should be")
    return ", ".join(parts)
