"""Statistics over seeds."""

import math
from collections.abc import Sequence

from lossgeom.claim import Interval
from lossgeom.lab._extra import required


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
    return float(required("scipy.stats").spearmanr(x, y).statistic)
