"""What the number of claims on a page means for their verdicts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from lossgeom.messages.extras import required
from lossgeom.recording.claim import holm
from lossgeom.report._source import Source

WRONG = 0.05  # the share of verdicts that may be wrong, or the probability that one of them is


def correction(sources: Sequence[Source]) -> dict[str, Any] | None:
    """How many statements would be shown by chance, and which verdicts stand for all of them.

    None for a page without statements, or with those of one study only.
    """
    many = {
        (place, claim.id): claim
        for place, source in enumerate(sources, 1)
        for claim in source.claims
        if not claim.control
    }
    if len({place for place, _ in many}) < 2:
        return None
    verdicts = {key for key, claim in many.items() if claim.verdict != "inconclusive"}
    chances = [claim.chance for claim in many.values()]
    shares = required("scipy.stats").false_discovery_control(chances)
    standing = {key for key, share in zip(many, shares, strict=True) if share <= WRONG} & verdicts
    return {
        "statements": len(many),
        "by_chance": f"{sum(0.05 if claim.every else 0.025 for claim in many.values()):.1f}",
        "shown": sum(claim.verdict == "shown" for claim in many.values()),
        "verdicts": len(verdicts),
        "standing": len(standing),
        "all_standing": sum(chance <= WRONG for chance in holm(chances)),
        "seeds": math.ceil(math.log2(len(many) / WRONG)),
        "fallen": verdicts - standing,
    }
