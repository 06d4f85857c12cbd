"""Statistics over seeds, and claims made from them."""

import math
from collections.abc import Sequence

from lossgeom.claim import Claim, Interval
from lossgeom.extras import required


def mean_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, Interval]:
    r"""The mean, and Student's confidence interval for it.

    .. math:: \bar x \pm t_{n-1} \, s / \sqrt n

    It takes the values as independent and about normal. Fewer than two values, or one that is not
    finite, give an interval of NaN.

    >>> mean_interval([1.0, 2.0, 3.0])
    (2.0, (-0.484..., 4.484...))
    """
    n = len(values)
    if n == 0:
        return math.nan, (math.nan, math.nan)
    if len(set(values)) == 1 and n > 1:
        return values[0], (values[0], values[0])
    mean = math.fsum(values) / n
    if n < 2 or not math.isfinite(mean):
        return mean, (math.nan, math.nan)
    spread = math.sqrt(math.fsum((x - mean) ** 2 for x in values) / (n - 1))
    half = float(required("scipy.stats").t.ppf((1 + level) / 2, n - 1)) * spread / math.sqrt(n)
    return mean, (mean - half, mean + half)


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's rank correlation; NaN with fewer than two points or a constant.

    >>> rank_correlation([1, 2, 3], [10, 30, 20])
    0.5
    """
    if len(x) < 2 or len(set(x)) == 1 or len(set(y)) == 1:
        return math.nan
    return round(float(required("scipy.stats").spearmanr(x, y).statistic), 12)


def claim_over_seeds(
    name: str,
    *,
    statement: str,
    source: str,
    measured: str,
    values: Sequence[float],
    expected: Interval,
    control: bool = False,
    note: str = "",
) -> Claim:
    """A claim about the mean over seeds; ``values`` are NaN for seeds that have none.

    >>> claim_over_seeds("a", statement="grows", source="A", measured="slope",
    ...     values=[1.0, 1.1], expected=(0.5, math.inf)).verdict
    'inconclusive'
    """
    known = [value for value in values if not math.isnan(value)]
    if len(known) < max(2, len(values)):
        reason = f"{len(known)} of {len(values)} seeds give a value; an interval needs two."
        note = f"{reason} {note}".strip()
    elif len(set(known)) == 1:
        note = f"All seeds give the same value, so the interval has no width. {note}".strip()
    mean, interval = mean_interval(known)
    return Claim(
        id=name,
        statement=statement,
        source=source,
        measured=measured,
        statistic=mean,
        interval=interval,
        per_seed=tuple(known),
        expected=expected,
        control=control,
        note=note,
    )
