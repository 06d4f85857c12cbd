"""Sums over batches and processes, and what the processes must have alike."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor

from lossgeom.distributed import ALONE, Alike, named
from lossgeom.problem.evaluation import Evaluation
from lossgeom.problem.isolation import measuring
from lossgeom.problem.model_facts import PointCache
from lossgeom.problem.passes import NoBatchesError, digest

if TYPE_CHECKING:
    from lossgeom.problem.problem import Problem

Summand = TypeVar("Summand", float, Tensor)
Parts = Iterable[tuple[Summand, float]]  # each with its number of terms


def reduced(
    problem: Problem, find: Callable[[Problem], Parts[Summand]], alike: Callable[[], Alike]
) -> tuple[Summand, float]:
    """The sum over all data of the parts that each process finds, and what to divide it by."""
    here, loss = problem.local, problem.evaluation.criterion

    def added() -> tuple[Summand | None, float]:
        total: Any = None
        counts: list[float] = []
        for part, terms in find(here):
            total = part if total is None else total + part
            counts.append(terms)
        return total, math.fsum(counts)

    def same(_: object) -> Alike:
        return {"what is measured": named(find), **problem.cached(at_point), **alike()}

    total, count = problem.ranks.added(added, same, problem.theta.device)
    if total is None:
        raise NoBatchesError
    if loss.average and not count > 0:
        raise ValueError(
            f"expected the loss {loss.name!r} to have terms, got a count of {count}; are "
            "all targets ignored?"
        )
    return total, count if loss.average else 1.0


def share_of(problem: Problem) -> Problem:
    """The problem of this process's share of the data, with the notes of all of it."""
    data = replace(problem.data, processes=1, is_share=True)
    return problem._with(data=data, ranks=ALONE, cache=PointCache(problem.cache.notes))


def in_order(problem: Problem) -> Evaluation:
    """The evaluation that draws a batch's random numbers by its place in all of the data."""
    ranks, here = problem.ranks, share_of(problem)

    def count() -> int:
        with measuring(here.theta.device), here.data.kept():
            return sum(1 for _ in here.data.over(here.theta))

    counts = ranks.gathered(ranks.together(count))
    return replace(problem.evaluation, batches_before=sum(counts[: ranks.rank]))


def at_point(problem: Problem) -> Alike:
    """What the processes that share the data must have alike."""
    at, network = problem.evaluation, problem.network
    own = getattr(at.criterion.terms, "__self__", "")  # with its settings
    names = set(network.frozen_names)
    frozen = (p for name, p in network.module.named_parameters() if name in names)
    constants = (*frozen, *(v for *_, v in network.held), *network.module.buffers())
    return {
        "the parameters' names and shapes": _short(zip(network.names, network.shapes, strict=True)),
        "their type": str(problem.theta.dtype),
        "the loss": f"{at.criterion.name} {own if at.criterion.known else ''}",
        "mode=": at.mode,
        "seed=": at.seed,
        "autocast=": str(at.autocast),
        "the parameters": _short([digest(problem.theta)]),
        "what is no parameter to measure in, such as buffers (running averages of BatchNorm differ "
        "between the processes of DistributedDataParallel: broadcast them before)": _short(
            map(digest, constants)
        ),
    }


def _short(said: Iterable[Any]) -> str:
    return hashlib.blake2b(repr(list(said)).encode(), digest_size=6).hexdigest()
