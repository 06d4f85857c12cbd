"""Sums over batches and processes, and what the processes must have alike."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from lossgeom.batches import Batch
from lossgeom.distributed import Ranks
from lossgeom.losses import Loss
from lossgeom.messages.alike import BUFFERS, Alike, InParts, Part, described
from lossgeom.problem.evaluation import Evaluation
from lossgeom.problem.isolation import measuring
from lossgeom.problem.passes import Data, NoBatchesError, digest

T = TypeVar("T")
Summand = TypeVar("Summand", float, Tensor)
Here = TypeVar("Here")
SENT = 2**24  # numbers of a tensor that are sent to say by how much it differs
Parts = Iterable[tuple[Summand, float]]  # each with its number of terms


def reduced(
    ranks: Ranks,
    loss: Loss,
    find: Callable[[], Parts[Summand]],
    alike: Callable[[], dict[str, object]],
    device: torch.device,
) -> tuple[Summand, float]:
    """The sum over processes of the parts that each finds, and the number to divide it by."""
    total, count = ranks.added(partial(_added, find), lambda _: alike() | described(find), device)
    if total is None:
        raise NoBatchesError
    if loss.average and not count > 0:
        raise ValueError(
            f"expected the loss {loss.name!r} to have terms, got a count of {count}; are "
            "all targets ignored?"
        )
    return total, count if loss.average else 1.0


def _added(find: Callable[[], Parts[Summand]]) -> tuple[Summand | None, float]:
    added = Sum()
    for part, terms in find():
        added.add(part, terms)
    return added.total, math.fsum(added.counts)


@dataclass
class Sum:
    """A sum of parts, of which it changes none, in memory of its own from the second one on.

    Attributes:
        total: of the parts.
        counts: their numbers of terms.
    """

    total: Any = None
    counts: list[float] = field(default_factory=list)

    def add(self, part: float | Tensor, terms: float = 0.0) -> None:
        """Add a part."""
        if len(self.counts) < 2:
            self.total = part if self.total is None else self.total + part
        else:
            self.total += part
        self.counts.append(terms)


def summed(
    here: Here,
    over: Callable[[Here, Callable[[Batch], None]], Any],
    function: Callable[[Batch], tuple[Summand, float]],
) -> Parts[Summand]:
    """The sum of what is found of each batch, of which one part is held at a time."""
    added = Sum()
    over(here, lambda batch: added.add(*function(batch)))
    return [(added.total, math.fsum(added.counts))] if added.counts else []


def rows(
    ranks: Ranks, find: Callable[[], Sequence[T]], alike: Callable[[], dict[str, object]]
) -> list[T]:
    """What each process finds of its share of the data, in their order."""

    def found() -> Sequence[T] | None:
        try:
            return find()
        except NoBatchesError:  # there may be some elsewhere
            return None

    part = ranks.together(found, lambda _: alike() | described(find))
    parts = [part for part in ranks.gathered(part) if part is not None]
    if not parts:
        raise NoBatchesError
    return [each for part in parts for each in part]


def in_order(at: Evaluation, data: Data, ranks: Ranks) -> Evaluation:
    """The evaluation that draws a batch's random numbers by its place in the data of all ranks."""
    if ranks.size == 1 or at.seed is None:
        return at
    counts = _counted(data, ranks, at.network.theta, lambda _: 1, {})
    return replace(at, batches_before=sum(counts[: ranks.rank]))


def taken(
    data: Data, n: int, in_examples: Callable[[Batch], Batch], ranks: Ranks, theta: Tensor
) -> Data:
    """The share that this process has of the first n examples of all, which may be none."""
    if ranks.size == 1 or n < 1:
        return data.first(n, in_examples)
    counts = _counted(data, ranks, theta, len, {"take": n})
    if sum(counts) < n:
        raise ValueError(f"take({n}): the data has only {sum(counts)} examples")
    own = min(n - sum(counts[: ranks.rank]), counts[ranks.rank])
    first = data.share.first(own, in_examples) if own > 0 else Data([], data.target)
    return replace(first, processes=ranks.size)


def _counted(
    data: Data, ranks: Ranks, theta: Tensor, size: Callable[[Batch], int], alike: Alike
) -> list[int]:
    """Count something of the batches of each process, in a pass over the data."""
    here = data.share

    def count() -> int:
        with measuring(theta.device), here.kept():
            return sum(map(size, here.over(theta)))

    return ranks.gathered(ranks.together(count, lambda _: alike))


def alike(at: Evaluation, theta: Tensor) -> dict[str, object]:
    """What the processes that share the data must have alike."""
    network, names = at.network, set(at.network.frozen_names)
    own = getattr(at.criterion.terms, "__self__", "")  # with its settings
    module = network.module
    frozen = {name: p for name, p in module.named_parameters() if name in names}
    places = {id(part): name for name, part in module.named_modules()}
    held = {f"{places.get(id(part))}.{name}": value for part, name, value in network.held}
    constants: dict[str, Tensor] = {**frozen, **held, **dict(module.named_buffers())}
    shapes = dict(zip(network.names, map(tuple, network.shapes), strict=True))

    def parameters() -> dict[str, Part]:
        return _by_digest(dict(zip(network.names, network.split(theta), strict=True)))

    return {
        "the parameters' names and shapes": InParts(
            _short(shapes.items()),
            lambda: {name: (str(size), None) for name, size in shapes.items()},
        ),
        "their type": str(theta.dtype),
        "the loss": f"{at.criterion.name} {own if at.criterion.known else ''}".strip(),
        "mode=": at.mode,
        "seed=": at.seed,
        "autocast=": str(at.autocast),
        "the parameters": InParts(_short([digest(theta)]), parameters),
        BUFFERS: InParts(_short(map(digest, constants.values())), lambda: _by_digest(constants)),
    }


def _by_digest(tensors: dict[str, Tensor]) -> dict[str, Part]:
    return {
        name: (digest(tensor)[:12], tensor.detach() if tensor.numel() <= SENT else None)
        for name, tensor in tensors.items()
    }


def _short(said: Iterable[Any]) -> str:
    return hashlib.blake2b(repr(list(said)).encode(), digest_size=6).hexdigest()
