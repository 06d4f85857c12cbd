"""The certificate of SGD that ``lossgeom measure`` prints."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from lossgeom.problem import NonFiniteError, Problem
from lossgeom.stability.sgd import Sampling, certify_sgd

SAMPLINGS: dict[str, Sampling] = {
    "without-replacement": "without replacement",
    "with-replacement": "with replacement",
    "reshuffling": "reshuffling",
}
LEFT_OUT = ("lr", "momentum", "notes")  # which the record has elsewhere, or in words


def certificate(
    problem: Problem, lr: float, batch_size: int, momentum: float, sampling: str | None
) -> dict[str, Any]:
    """Certify SGD, as numbers and in words; where the loss is not finite, in words alone."""
    drawn = SAMPLINGS[sampling or "without-replacement"]
    try:
        found = certify_sgd(problem, lr, batch_size, momentum, drawn)
    except NonFiniteError as error:
        said = f"SGD is not certified to be stable: {error}"
        return {"batch_size": batch_size, "sampling": drawn, "state": "between", "told": (said,)}
    numbers = {key: value for key, value in asdict(found).items() if key not in LEFT_OUT}
    derived = {"threshold": found.threshold, "ratio": found.ratio}
    return {**numbers, **derived, "told": str(found).splitlines()}
