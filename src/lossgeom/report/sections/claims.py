"""The claims with their verdicts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lossgeom.claim import Claim, counted
from lossgeom.report._section import Section
from lossgeom.report._source import Source

SYMBOLS = {"shown": "✓", "contradicted": "✗", "inconclusive": "?"}


def claims(source: Source, figures: Path) -> Section | None:  # noqa: ARG001
    """A row per claim: verdict, statistic with its interval, and the range it must lie in."""
    if not source.claims:
        return None
    return Section("Claims", "claims.html", {"claims": [_row(claim) for claim in source.claims]})


def overview(sources: Sequence[Source]) -> list[dict[str, Any]]:
    """The claims of several studies, in short, with the place of each; nothing for a single one."""
    found = [
        {
            "place": place,
            "title": source.told.title,
            "counted": counted(source.claims),
            "claims": [_row(claim) for claim in source.claims],
        }
        for place, source in enumerate(sources, 1)
        if source.claims
    ]
    return found if len(found) > 1 else []


def _row(claim: Claim) -> dict[str, Any]:
    low, high = claim.interval
    return {
        **claim.to_json(),
        "symbol": SYMBOLS[claim.verdict],
        "statistic": number(claim.statistic),
        "interval": f"[{number(low)}, {number(high)}]" if low == low else "no interval",
        "expected": expected(*claim.expected),
        "per_seed": ", ".join(map(number, claim.per_seed)),
    }


def expected(low: float, high: float) -> str:
    """Write a range in words.

    >>> expected(-math.inf, -0.9), expected(0.9, math.inf), expected(0.75, 1.25)
    ('at most -0.9', 'at least 0.9', '0.75 to 1.25')
    """
    if math.isinf(low):
        return f"at most {high:g}"
    return f"at least {low:g}" if math.isinf(high) else f"{low:g} to {high:g}"


def number(value: float) -> str:
    """Write a number with three significant digits.

    >>> number(0.98765), number(float("nan"))
    ('0.988', 'no value')
    """
    return "no value" if math.isnan(value) else f"{value:.3g}"
