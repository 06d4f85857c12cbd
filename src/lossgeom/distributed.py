"""What several processes have together: sums, rows, errors. Only this file uses torch.distributed.

Each process holds a share of the data and the same parameters. Whatever is found of the shares is
brought together between passes over the data, never inside one, and errors with it: no process
waits for another that has failed. Before numbers are added up, the processes tell each other what
they are of, so that those that have come to differ raise an error, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor

T = TypeVar("T")
Summand = TypeVar("Summand", float, Tensor)
Alike = Mapping[str, object]  # what must be the same on all ranks, by what it is

A_NUMBER = "a number"


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

    def together(self, find: Callable[..., T], *_: Any) -> T:
        """Return what a function finds."""
        return find()

    added = together

    def sum(self, part: Summand) -> Summand:
        """The part itself."""
        return part

    def gathered(self, thing: T) -> list[T]:
        """The one thing there is."""
        return [thing]

    def rows(self, part: Shaped[Tensor, "n ..."]) -> Shaped[Tensor, "N ..."]:
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

    def together(self, find: Callable[[], T], alike: Callable[[T], Alike] = lambda _: {}) -> T:
        """Return what a function finds here, or raise on all if it raises on any of them.

        The function must not call for other ranks itself.

        Args:
            find: the function.
            alike: what must be the same on all ranks, from what is found.
        """
        return self._met(find, lambda found: (alike(found), None))[0]

    def added(
        self,
        find: Callable[[], tuple[Summand | None, float]],
        alike: Callable[[Any], Alike],
        device: torch.device,
    ) -> tuple[Summand | None, float]:
        """Sum over all ranks what each finds, and a count; ``None`` adds nothing to a sum.

        Args:
            find: a number or a tensor, the same on all ranks but for its values, and the count.
            alike: what must be the same on all ranks, from what is found.
            device: of the tensors.
        """

        def told(found: tuple[Summand | None, float]) -> tuple[Alike, Any]:
            part, count = found
            form = _form(part)
            number = part if isinstance(part, (int, float)) else 0.0
            return {**alike(found), "what is added up": form}, (form, number, count)

        (part, _), notes = self._met(find, told)
        forms, numbers, counts = zip(*notes, strict=True)
        form, count = next(filter(None, forms), None), math.fsum(counts)
        if form is None or form == A_NUMBER:
            return cast(Summand | None, form and math.fsum(numbers)), count
        total = torch.zeros(form[0], dtype=form[1], device=device)
        if isinstance(part, Tensor):
            total.copy_(part.detach())
        self._call(dist.all_reduce, total)
        return cast(Any, total), count

    def sum(self, part: Summand) -> Summand:
        """The sum over all ranks of numbers, or of tensors of one shape; the same bits on each."""
        device = part.device if isinstance(part, Tensor) else torch.device("cpu")
        total = self.added(lambda: (part, 0.0), lambda _: {}, device)[0]
        return cast(Summand, total)

    def gathered(self, thing: T) -> list[T]:
        """What each rank has, in their order."""
        return cast(list[T], self._met(lambda: thing, lambda found: ({}, found))[1])

    def rows(self, part: Shaped[Tensor, "n ..."]) -> Shaped[Tensor, "N ..."]:
        """The rows of all ranks, in their order; their numbers may differ."""
        return torch.cat([rows.to(part) for rows in self.gathered(part.detach().cpu())])

    def from_first(self, thing: T) -> T:
        """What rank 0 has."""
        return self.gathered(thing)[0]

    def _met(
        self, find: Callable[[], T], told: Callable[[T], tuple[Alike, Any]]
    ) -> tuple[T, list[Any]]:
        """Return what is found here, and what each rank tells of what it has found."""
        found, error, note = None, None, None
        try:
            found = find()
            note = told(found)
        except Exception as raised:  # of whatever a model or its loss says
            error = raised
        said: list[Any] = [None] * self.size
        self._call(dist.all_gather_object, said, (_named(find), error and _said(error), note))
        if error is not None:
            raise error
        failed = [text for _, text, _ in said if text is not None]
        if failed:
            raise OtherRankError(
                f"{len(failed)} of {self.size} processes could not measure; the first error: "
                f"{failed[0]}"
            )
        _check_alike([{"what is asked for": name, **note[0]} for name, _, note in said])
        return cast(T, found), [note[1] for *_, note in said]

    def _call(self, collective: Callable[..., Any], *args: Any) -> None:
        """Call for the other ranks, or say that one of them is gone."""
        try:
            collective(*args, group=self.group)
        except RuntimeError as error:
            raise OtherRankError(
                f"rank {self.rank} of {self.size} lost the others, of which one has ended or waits "
                f"elsewhere; see their output ({str(error).splitlines()[0]})"
            ) from error


Ranks = Alone | ProcessGroup
ALONE: Ranks = Alone()


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def described(function: Any) -> dict[str, object]:
    """What a function is called, with those and the vectors that it is given; alike on all ranks.

    A number tells a block of vectors from others, up to rounding.
    """
    given = [function]
    if isinstance(function, partial):
        given = [function.func, *function.args, *function.keywords.values()]
    said: dict[str, object] = {}
    for part in given:
        if isinstance(part, Tensor):
            size = float(torch.linalg.vector_norm(part, dtype=torch.float64))
            told = float(part.sum(dtype=torch.float64)) / (size or 1.0)
            said["the vectors"] = told if math.isfinite(told) else "not finite"
    names = (_named(part) for part in given if callable(part))
    return {"what is measured": " of ".join(names), **said}


def _named(function: Any) -> str:
    if isinstance(function, partial):
        return _named(function.func)
    owner = getattr(function, "__self__", None)  # of a method, whose class may be a finer one
    name = getattr(function, "__qualname__", type(function).__name__)
    return str(name) if owner is None else f"{name} of {type(owner).__name__}"


def _form(part: float | Tensor | None) -> Any:
    """What must be the same of what is added up; ``None`` where there is nothing."""
    if isinstance(part, Tensor):
        return tuple(part.shape), part.dtype
    return part if part is None else A_NUMBER


def _same(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, float):  # which may be off by rounding
        return math.isclose(one, other, rel_tol=1e-5, abs_tol=1e-3)
    return one == other


def _check_alike(told: Sequence[Alike]) -> None:
    """Raise where ranks that say something do not say the same, which all of them see at once."""
    for what in dict.fromkeys(what for said in told for what in said):
        of = [(rank, said[what]) for rank, said in enumerate(told) if said.get(what) is not None]
        for rank, got in of[1:]:
            first, expected = of[0]
            if not _same(expected, got):
                raise ValueError(
                    f"expected the processes that share the data to agree in {what}, got "
                    f"{expected} on rank {first} and {got} on rank {rank}"
                )


def ranks(group: Any = None) -> Ranks:
    """The processes of this run that torch.distributed knows, such as those of torchrun.

    They share the data of ``Problem(..., ranks=lg.ranks())``: each gives batches of its own, and
    all have the same model and ask for the same in the same order. What is found of them is that of
    one process with all of the data. A process whose share fails raises its error, and the others
    raise :class:`OtherRankError`; so they do, where the back end notices it, if one of them ends.

    Cost: for each number of a problem, a small object from every process to every other; for each
    product with a matrix, that and a sum of as many numbers as it has. NCCL needs the device of
    each process to be the current one (``torch.cuda.set_device``), and notices a process that has
    ended only after the group's time-out.

    Args:
        group: a process group in place of all processes.

    Returns:
        The ranks; this process alone where there are no others.

    Raises:
        ValueError: for what is no group that this process is part of.

    >>> ranks().size
    1
    """
    if not (dist.is_available() and dist.is_initialized()):
        return ALONE
    if group is None and dist.get_world_size() == 1:
        return ALONE
    if not (group is None or isinstance(group, dist.ProcessGroup)) or dist.get_rank(group) < 0:
        raise ValueError(
            "expected a process group of torch.distributed that this process is part of, got "
            f"{group!r}"
        )
    return ProcessGroup(dist.get_rank(group), dist.get_world_size(group), group)
