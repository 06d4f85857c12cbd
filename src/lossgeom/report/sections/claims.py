"""The claims with their verdicts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lossgeom.recording.claim import Claim, counted
from lossgeom.report._section import Section
from lossgeom.report._source import Source

NAMED = 3  # runs that failed
SYMBOLS = {"shown": "✓", "contradicted": "✗", "inconclusive": "?"}


def claims(source: Source, figures: Path) -> Section | None:  # noqa: ARG001
    """A row per claim: verdict, statistic with its interval, and the range it must lie in."""
    if not source.claims:
        return None
    return Section("Claims", "claims.html", {"claims": [_row(claim) for claim in source.claims]})


def overview(sources: Sequence[Source]) -> list[dict[str, Any]]:
    """What is in a page of several, with the claims of each in short; nothing for a single one."""
    return [
        {
            "place": place,
            "title": source.told.title,
            "said": counted(source.claims) if source.claims else "",
            "missing": _missing(source),
            "claims": [_row(claim) for claim in source.claims],
        }
        for place, source in enumerate(sources, 1)
        if len(sources) > 1
    ]


def _missing(source: Source) -> str:
    """Say which runs have failed, and how many are not over; empty if there is nothing to say."""
    failed = [name for name, record in source.records.items() if record.status == "failed"]
    over = sum(record.is_over for record in source.records.values())
    said = [f"not complete: {over} of {len(source.planned)} runs are over"]
    named = ", ".join(failed[:NAMED]) + f" and {len(failed) - NAMED} others" * (len(failed) > NAMED)
    return "; ".join([*said * (not source.complete), *[f"failed: {named}"] * bool(failed)])


def _row(claim: Claim) -> dict[str, Any]:
    return {
        **claim.to_json(),
        "symbol": SYMBOLS[claim.verdict],
        "statistic": number(claim.statistic),
        "interval": interval(*claim.interval),
        "expected": expected(*claim.expected),
        "per_seed": ", ".join(map(number, claim.per_seed)),
    }


def told(claim: Claim) -> str:
    """Write a verdict with the numbers that it rests on."""
    found = f"{number(claim.statistic)}, {interval(*claim.interval)}"
    return f"{SYMBOLS[claim.verdict]} {claim.verdict}: {found}"


def interval(low: float, high: float) -> str:
    """Write a confidence interval.

    >>> interval(0.5, 2.0), interval(math.nan, math.nan)
    ('[0.5, 2]', 'no interval')
    """
    return "no interval" if math.isnan(low) else f"[{number(low)}, {number(high)}]"


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
