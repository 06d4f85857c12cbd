"""What several processes have together: sums, rows, errors. Only this file uses torch.distributed.

Each process holds a share of the data and the same parameters. Whatever is found of the shares is
brought together between passes over the data, never inside one, and errors with it: no process
waits for another that has failed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor

T = TypeVar("T")
Summand = TypeVar("Summand", float, Tensor)


class OtherRankError(RuntimeError):
    """Another process could not measure its share; what it met is in its own output."""


@dataclass(frozen=True)
class Alone:
    """One process, which needs no other.

    Attributes:
        rank, size: which one it is, and how many there are.
    """

    rank: int = 0
    size: int = 1

    def together(self, find: Callable[[], T]) -> T:
        """Return what a function finds."""
        return find()

    def sum(self, part: Summand) -> Summand:
        """The part itself."""
        return part

    def gathered(self, thing: T) -> list[T]:
        """The one thing there is."""
        return [thing]

    def rows(self, part: Shaped[Tensor, n * rest]) -> Shaped[Tensor, N * rest]:
        """The rows themselves."""
        return part

    def from_first(self, thing: T) -> T:
        """The thing itself."""
        return thing


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of a group of torch.distributed.

    Attributes:
        rank, size: which of them this one is, and how many there are.
        group: the group; ``None`` is the default one.
    """

    rank: int
    size: int
    group: Any = None

    def together(self, find: Callable[[], T]) -> T:
        """Return what a function finds here, or raise on all if it raises on any of them.

        The function must not call for other ranks itself.
        """
        found, error = None, None
        try:
            found = find()
        except Exception as raised:  # of whatever a model or its loss says
            error = raised
        failed = [said for said in self.gathered(error and _said(error)) if said is not None]
        if error is not None:
            raise error
        if failed:
            raise OtherRankError(
                f"{len(failed)} of {self.size} processes could not measure; the first error: "
                f"{failed[0]}"
            )
        return cast(T, found)

    def sum(self, part: Summand) -> Summand:
        """The sum over all ranks of numbers, or of tensors of one shape; the same bits on each."""
        if not isinstance(part, Tensor):
            return math.fsum(self.gathered(part))
        total = part.detach().clone()
        self._met(dist.all_reduce, total, group=self.group)
        return total

    def gathered(self, thing: T) -> list[T]:
        """What each rank has, in their order."""
        things: list[Any] = [None] * self.size
        self._met(dist.all_gather_object, things, thing, group=self.group)
        return things

    def rows(self, part: Shaped[Tensor, n * rest]) -> Shaped[Tensor, N * rest]:
        """The rows of all ranks, in their order; their numbers may differ."""
        return torch.cat([rows.to(part) for rows in self.gathered(part.detach().cpu())])

    def from_first(self, thing: T) -> T:
        """What rank 0 has."""
        return self.gathered(thing)[0]

    def _met(self, collective: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Call for the other ranks, or say that one of them is gone."""
        try:
            collective(*args, **kwargs)
        except RuntimeError as error:
            raise OtherRankError(
                f"rank {self.rank} of {self.size} lost the others, of which one has ended or waits "
                f"elsewhere; see their output ({str(error).splitlines()[0]})"
            ) from error


Ranks = Alone | ProcessGroup
ALONE: Ranks = Alone()


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def ranks(group: Any = None) -> Ranks:
    """The processes of this run that torch.distributed knows, such as those of torchrun.

    Args:
        group: a process group in place of all processes.

    Returns:
        Ranks, for ``Problem(..., ranks=lg.ranks())``; this process alone where there is no group.

    >>> ranks().size
    1
    """
    if not (dist.is_available() and dist.is_initialized()):
        return ALONE
    if group is None and dist.get_world_size() == 1:
        return ALONE
    return ProcessGroup(dist.get_rank(group), dist.get_world_size(group), group)
