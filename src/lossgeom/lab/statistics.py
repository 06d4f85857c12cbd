"""Statistics over seeds, and claims made from them.

There are three kinds of claims, by what the statement is about. A number of each seed is judged by
its median over seeds, with an interval from order statistics; how many seeds or runs are of some
kind, by their share, with the interval of Clopper and Pearson; and what holds of all, by the worst
of all. The intervals are exact for any distribution, and stay in the range of what is measured.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from lossgeom.messages.extras import required
from lossgeom.recording.claim import LEVEL, Claim, Interval, chance

FEWEST_SEEDS = 6  # that give the median an interval at this level, since 2 / 2^6 < 0.05 < 2 / 2^5
MOST: Interval = (0.5, math.inf)  # share of seeds or runs

NO_INTERVAL: Interval = (math.nan, math.nan)


def median_interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, Interval]:
    r"""The median, and a confidence interval for it from order statistics.

    .. math:: [x_{(j)}, x_{(n + 1 - j)}], \quad
        j = \max \{ j : P(\mathrm{Bin}(n, 1/2) < j) \le (1 - \mathrm{level}) / 2 \}

    It takes the values as independent and of the same distribution, whatever that is, and covers
    the median at least as often as it says. Values that are not finite count by their order.

    Fewer than 6 values at a level of 95 % give an interval of NaN, and so do finite ones that are
    all the same, for they do not say how much there is to vary.

    >>> median_interval([5.0, 3.0, 1.0, 6.0, 4.0, 2.0])
    (3.5, (1.0, 6.0))
    >>> median_interval([1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    (1.0, (nan, nan))
    """
    n, ordered = len(values), sorted(values)
    if n == 0 or any(math.isnan(value) for value in values):
        return math.nan, NO_INTERVAL
    below = required("scipy.stats").binom.cdf(range(n), n, 0.5)
    j = int((below <= (1 - level) / 2).sum())
    equal = ordered[0] == ordered[-1] and math.isfinite(ordered[0])
    interval = NO_INTERVAL if equal or j == 0 else (ordered[j - 1], ordered[-j])
    return statistics.median(ordered), interval


def share_interval(hits: int, trials: int, level: float = LEVEL) -> tuple[float, Interval]:
    """The share of hits, and the exact confidence interval of Clopper and Pearson for it.

    Without trials both are NaN.

    >>> share_interval(6, 6)
    (1.0, (0.540..., 1.0))
    """
    if trials == 0:
        return math.nan, NO_INTERVAL
    beta, misses, tail = required("scipy.stats").beta, trials - hits, (1 - level) / 2
    low = beta.ppf(tail, hits, misses + 1) if hits else 0.0
    high = beta.isf(tail, hits + 1, misses) if misses else 1.0
    return hits / trials, (float(low), float(high))


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's rank correlation; NaN with fewer than two points or a constant.

    >>> rank_correlation([1, 2, 3], [10, 30, 20])
    0.5
    """
    if len(x) < 2 or len(set(x)) == 1 or len(set(y)) == 1:
        return math.nan
    return round(float(required("scipy.stats").spearmanr(x, y).statistic), 12)


def claim_over_seeds(name: str, *, values: Sequence[float], note: str = "", **parts: Any) -> Claim:
    """Make a claim about the median over seeds; ``values`` are NaN for seeds that have none.

    The other parts are those of :class:`lossgeom.Claim`.

    >>> claim_over_seeds("a", statement="grows", source="A", measured="slope",
    ...     values=[1.0, 1.1], expected=(0.5, math.inf)).verdict
    'inconclusive'
    """
    given = known(values)
    median, interval = median_interval(given)
    reason = _missing(values)
    if len(given) < FEWEST_SEEDS:
        reason = f"{_counted(values)}; an interval needs {FEWEST_SEEDS}."
    elif math.isnan(interval[0]):
        reason = "All seeds give the same value, which says nothing of how much it can vary."
    return claim_of(
        name, median, lambda level: median_interval(given, level)[1], values, reason, note, **parts
    )


def claim_of_seeds(
    name: str,
    *,
    values: Sequence[float],
    inside: Interval,
    measured: str = "",
    of: str = "",
    note: str = "",
    **parts: Any,
) -> Claim:
    """Make a claim that the number of most seeds lies in a range; ``values`` are as above.

    It is for counts, shares and rank correlations, of which all seeds may well have the same.
    Where the range has one end, it is enough to say what the number is a number ``of``.

    >>> claim_of_seeds("a", statement="there are 9", source="A", measured="share of seeds with 9",
    ...     values=[9, 9, 9, 9, 9, 9], inside=(9, 9)).verdict
    'shown'
    """
    given = known(values)
    hits = sum(inside[0] <= value <= inside[1] for value in given)
    low, high = inside
    some = f"at least {low:g}" if math.isinf(high) else f"at most {high:g}"
    said = measured or f"share of seeds in which this is {some}: the {of}"
    parts = {**parts, "measured": said, "expected": MOST}
    return _claim_of_share(name, hits, len(given), values, note, **parts)


def claim_of_runs(
    name: str, *, values: Sequence[float], runs: int, note: str = "", **parts: Any
) -> Claim:
    """Make a claim about the share of independent runs, from that of each seed's ``runs``.

    >>> claim_of_runs("a", statement="most do", source="A", measured="share",
    ...     values=[1.0, 0.9], runs=10, expected=MOST).interval
    (0.75..., 0.99...)
    """
    given = known(values)
    hits = sum(round(v * runs) for v in given)
    return _claim_of_share(name, hits, runs * len(given), values, note, **parts)


def claim_of_all(
    name: str,
    *,
    values: Sequence[float],
    expected: Interval,
    cases: int = 1,
    case: str = "seed",
    note: str = "",
    **parts: Any,
) -> Claim:
    """Make a claim about all cases, which one of them contradicts.

    However many agree, others need not. What their number says is in the note: without a
    counterexample among n, the share of counterexamples is at most 1 - 0.05^(1/n), about 3 / n,
    with a confidence of 95 %. Where that is not below a half, the claim is inconclusive.

    Args:
        name: of the claim.
        values: the worst of each seed; NaN for a seed that has none.
        expected: as in :class:`lossgeom.Claim`.
        cases: independent ones for each seed.
        case: what they are called.
        note: what follows.
        parts: the others of :class:`lossgeom.Claim`.

    >>> claim_of_all("a", statement="never above 1", source="A", measured="largest",
    ...     values=[0.2, 0.3, 1.1], expected=(-math.inf, 1.0)).verdict
    'contradicted'
    """
    low, high = expected
    given = known(values)
    worst = min(given, key=lambda value: min(value - low, high - value), default=math.nan)
    found = sum(not low <= value <= high for value in given)
    n = cases * len(given)
    most = 1 - (1 - LEVEL) ** (1 / n) if n else 1.0
    reason = f"{found} of {len(given)} seeds have a counterexample."
    if not found:
        reason = (
            f"No counterexample in {n} {case}{'s' * (n != 1)}: with 95% confidence, it is so in at "
            f"least {1 - most:.1%} of all."
        )
    interval = (min(given), max(given)) if found or most < 0.5 else NO_INTERVAL
    unless = 0.5**n if most < 0.5 else 1.0  # that half of all or more are counterexamples
    return claim_of(
        name, worst, lambda _: interval, values, _missing(values), reason, note,
        expected=expected, every=True, chance=0.0 if found else unless, **parts,
    )  # fmt: skip


def control(make: Callable[..., Claim], name: str, *, statement: str, **parts: Any) -> Claim:
    """Make a negative control: a claim that has to fail, by one of the functions above."""
    return make(
        f"control_{name}",
        statement=f"Negative control: {statement}",
        source="made to fail",
        control=True,
        **parts,
    )


def counted(found: Sequence[Claim]) -> str:
    """Say how many statements are shown, how many negative controls fail, and if seeds are few."""
    controls = [claim for claim in found if claim.control]
    shown = sum(claim.verdict == "shown" for claim in found if not claim.control)
    failed = sum(claim.as_expected for claim in controls)
    seeds = max((len(claim.per_seed) for claim in found), default=0)
    too_few = f"; most need {FEWEST_SEEDS} seeds to be judged, and there {_are(seeds)}."
    return (
        f"{shown} of {len(found) - len(controls)} statements are shown, and {failed} of "
        f"{len(controls)} negative controls fail"
        + (too_few if seeds < FEWEST_SEEDS else ", as they should.")
    )


def _are(count: int) -> str:
    return "is 1" if count == 1 else f"are {count}"


def known(values: Iterable[float]) -> list[float]:
    """The values that are not NaN."""
    return [value for value in values if not math.isnan(value)]


def mean(values: Iterable[float]) -> float:
    """The mean; NaN if there is nothing, or a NaN among them."""
    return statistics.fmean(list(values) or [math.nan])


def mean_known(values: Iterable[float], form: str = ".2f") -> str:
    """Say what the mean of the values is that are not NaN.

    >>> mean_known([1.0, math.nan, 2.0]), mean_known([math.nan])
    ('1.50', 'not known')
    """
    found = known(values)
    return f"{mean(found):{form}}" if found else "not known"


def means(found: Mapping[str, Iterable[float]], form: str = ".3g") -> str:
    """The same of several, for a note.

    >>> means({"k = 1": [0.5], "k = 2": [1.0, 2.0]})
    'Means over seeds: k = 1 0.5, k = 2 1.5.'
    """
    each = (f"{name} {mean_known(values, form)}" for name, values in found.items())
    return f"Means over seeds: {', '.join(each)}."


def note(text: str, value: float) -> str:
    """Put a number into a text; an empty one for NaN.

    >>> note("It is {:.2f}.", 1 / 3)
    'It is 0.33.'
    """
    return "" if math.isnan(value) else text.format(value)


def _missing(values: Sequence[float]) -> str:
    return "" if len(known(values)) == len(values) else f"{_counted(values)}."


def _counted(values: Sequence[float]) -> str:
    return f"{len(known(values))} of {len(values)} seeds give a value"


def _claim_of_share(
    name: str, hits: int, trials: int, values: Sequence[float], note: str, **parts: Any
) -> Claim:
    def interval(level: float) -> Interval:
        return share_interval(hits, trials, level)[1]

    share = share_interval(hits, trials)[0]
    return claim_of(name, share, interval, values, _missing(values), note, **parts)


def claim_of(
    name: str,
    statistic: float,
    interval: Callable[[float], Interval],
    values: Sequence[float],
    *notes: str,
    expected: Interval,
    **parts: Any,
) -> Claim:
    """Make a claim about a statistic that has an interval at any level."""
    return Claim(
        name,
        statistic=statistic,
        interval=interval(LEVEL),
        per_seed=tuple(known(values)),
        expected=expected,
        note=" ".join(filter(None, notes)),
        **{"chance": chance(interval, expected), **parts},
    )
