"""Sums over batches and processes, and what they are divided by."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from torch import Tensor

from lossgeom.distributed import Ranks
from lossgeom.losses import Loss

Summand = TypeVar("Summand", float, Tensor)
Parts = Iterable[tuple[Summand, float]]  # each with its number of terms


def reduced(ranks: Ranks, loss: Loss, find: Callable[[], Parts[Summand]]) -> tuple[Summand, float]:
    """The sum over processes of the parts that each finds, and the number to divide it by."""
    total, count = ranks.together(lambda: _added(find()))
    total, count = ranks.sum(total), ranks.sum(count)
    if loss.average and not count > 0:
        raise ValueError(
            f"expected the loss {loss.name!r} to have terms, got a count of {count}; are "
            "all targets ignored?"
        )
    return total, count if loss.average else 1.0


def _added(parts: Parts[Summand]) -> tuple[Summand, float]:
    total: Any = None
    counts: list[float] = []
    for part, terms in parts:
        total = part if total is None else total + part
        counts.append(terms)
    return total, math.fsum(counts)


def check_alone(ranks: Ranks) -> None:
    """Raise for what is asked of the data of one process, where several share it."""
    if ranks.size > 1:
        raise ValueError(
            f"this is measured on one process, and {ranks.size} share the data of the problem; "
            "make the problem without ranks=, with all of the data on one of them"
        )
