"""What several processes have together: sums, rows, errors. Only this file uses torch.distributed.

Each process holds a share of the data and the same parameters. Whatever is found of the shares is
brought together between passes over the data, never inside one, and errors with it: no process
waits for another that has failed. Before numbers are added up, the processes tell each other what
they are of, so that those that have come to differ raise an error, too.
"""

from __future__ import annotations

import atexit
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor

from lossgeom.messages.alike import ASKED, IN_ORDER, Alike, InParts, Told, by_name, named, unlike
from lossgeom.messages.notes import Note, first_failure

T = TypeVar("T")
Summand = TypeVar("Summand", float, Tensor)

A_NUMBER = "a number"
PASS = math.inf  # the level of what calls for no other rank


class OtherRankError(RuntimeError):
    """Another process could not measure its share; what it met is in its own output."""


@dataclass(frozen=True)
class Alone:
    """One process, which needs no other: rank 0 of 1."""

    rank: int = 0
    size: int = 1

    def together(self, find: Callable[..., T], *_: Any, level: float = PASS) -> T:  # noqa: ARG002
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

    def together(
        self,
        find: Callable[[], T],
        alike: Callable[[T], Alike] = lambda _: {},
        *,
        level: float = PASS,
    ) -> T:
        """Return what a function finds here, or raise on all if it raises on any of them.

        The function must not call for other ranks itself but at higher levels. Who comes to the end
        of a level waits there for those that are inside, whose calls raise errors from then on.

        Args:
            find: the function.
            alike: what must be the same on all ranks, from what is found.
            level: a number for a function that calls for other ranks, less for what is further out.
        """
        return self._met(find, lambda found: (alike(found), None), level)[0]

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
        """What each rank has, in their order; tensors of a GPU on that of this one."""
        return cast(list[T], self._met(lambda: thing, lambda found: ({}, found))[1])

    def rows(self, part: Shaped[Tensor, "n ..."]) -> Shaped[Tensor, "N ..."]:
        """The rows of all ranks, in their order; their numbers may differ."""
        return torch.cat(self.gathered(part.detach()))

    def from_first(self, thing: T) -> T:
        """What rank 0 has."""
        return cast(T, self.gathered(thing if self.rank == 0 else None)[0])

    def _met(
        self, find: Callable[[], T], told: Callable[[T], tuple[Alike, Any]], level: float = PASS
    ) -> tuple[T, list[Any]]:
        """Return what is found here, and what each rank tells of what it has found."""
        found, error, own, name = None, None, None, named(find)
        try:
            found = find()
            own = Note(name, *told(found))
            packed = own.packed  # or an error of what cannot be sent
        except BaseException as raised:  # of whatever a model or its loss says, and Ctrl-C
            error, own = raised, Note.of(name, raised, isinstance(raised, OtherRankError))
            packed = own.packed
        try:
            notes = self._told(level, packed)
        except OtherRankError:
            if error is None:
                raise
            notes = []
        failure = first_failure(notes)
        if error is not None and (failure is None or failure[1].kind == own.kind):
            raise error
        if failure is not None:
            rank, note, number = failure
            raise note.result or OtherRankError(
                f"{number} of {self.size} processes could not measure; the first error, on rank "
                f"{rank}: {note.error}"
            ) from error
        self._check_alike(own, notes)
        return cast(T, found), [note.told for note in notes]

    def _check_alike(self, own: Note, notes: Sequence[Note]) -> None:
        """Raise where ranks do not say the same; of what has parts, say which."""
        if (differs := unlike([{ASKED: note.asked, **note.alike} for note in notes])) is None:
            return
        detail, what = "", own.alike.get(differs.what)
        if isinstance(differs.got[0], Told):
            parts, told = self._met(what.each if isinstance(what, InParts) else dict, by_name)
            if names := differs.parts(told):
                first = parts.get(names[0], ("", None))[1] if self.rank in differs.ranks else None
                detail = differs.detail(names, told, self.gathered(first))
        raise ValueError(differs.in_words(detail))

    def _told(self, level: float, note: bytes) -> list[Note]:
        """What each rank tells in a note, once all of them are at one level."""
        lowest, highest = -math.inf, math.inf
        while not lowest == level == highest:
            told: list[Any] = [None] * self.size
            self._call(dist.all_gather_object, told, (level, note))
            levels, packed = zip(*told, strict=True)
            lowest, highest = min(levels), max(levels)
            if lowest < level:
                raise OtherRankError(self._left(levels.index(lowest), packed))
        return list(map(Note.unpacked, packed))

    def _left(self, rank: int, packed: Sequence[bytes]) -> str:
        """What is said where a rank is not in any more what this one is in."""
        if (error := Note.unpacked(packed[rank]).error) is not None:
            return f"rank {rank} of {self.size} could not measure: {error}"
        return (
            f"rank {rank} of {self.size} is done with what this one is in the middle of; expected "
            f"that {IN_ORDER}"
        )

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


def launched() -> Ranks:
    """The processes that torchrun has started this one with, whose group is made and ended here.

    Sums of tensors of a GPU go through NCCL where each process has one to itself; it is then the
    current one.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if dist.is_available() and dist.is_torchelastic_launched() and size > 1:
        place, here = (int(os.environ[f"LOCAL_{name}"]) for name in ("RANK", "WORLD_SIZE"))
        own = here <= torch.cuda.device_count()
        if own:
            torch.cuda.set_device(place)
        dist.init_process_group("cpu:gloo,cuda:nccl" if own else "gloo")
        atexit.register(dist.destroy_process_group)
    return ranks()


def _form(part: float | Tensor | None) -> Any:
    """What must be the same of what is added up; ``None`` where there is nothing."""
    if isinstance(part, Tensor):
        return tuple(part.shape), part.dtype
    return part if part is None else A_NUMBER


def ranks(group: Any = None) -> Ranks:
    """The processes of this run that torch.distributed knows, such as those of torchrun.

    They share the data of ``Problem(..., ranks=lg.ranks())``: each gives batches of its own, and
    all have the same model and ask for the same in the same order. What is found of them is that of
    one process with all of the data. A process whose share fails raises its error, and the others
    raise :class:`OtherRankError`; so they do, where the back end notices it, if one of them ends.

    Cost: two collectives of some hundred bytes for each number of a problem, about a millisecond;
    for each product with a matrix a third one, the sum of its vectors. NCCL needs the device of
    each process to be the current one (``torch.cuda.set_device``), and notices a process that has
    ended only after the group's time-out.

    Args:
        group: a process group in place of all processes.

    Returns:
        The ranks; this process alone where there are no others.

    Raises:
        ValueError: for what is no group that this process is part of.
        RuntimeError: under torchrun, before ``init_process_group``.

    >>> ranks().size
    1
    """
    if not (dist.is_available() and dist.is_initialized()):
        if "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1":
            raise RuntimeError(
                "torchrun has started several processes, which have no group yet; call "
                "torch.distributed.init_process_group before lossgeom.ranks"
            )
        return ALONE
    if group is None and dist.get_world_size() == 1:
        return ALONE
    if not (group is None or isinstance(group, dist.ProcessGroup)) or dist.get_rank(group) < 0:
        raise ValueError(
            "expected a process group of torch.distributed that this process is part of, got "
            f"{group!r}"
        )
    return ProcessGroup(dist.get_rank(group), dist.get_world_size(group), group)


def checked_ranks(ranks: Ranks) -> Ranks:
    """The processes, or an error for anything else."""
    if not isinstance(ranks, Ranks):
        raise TypeError(
            "expected ranks=lossgeom.ranks(), or lossgeom.ranks(group) for some of the processes, "
            f"got {type(ranks).__name__}"
        )
    return ranks
