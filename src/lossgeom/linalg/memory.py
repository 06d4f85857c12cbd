"""What a measurement holds in memory beyond model and data, said before it is taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from lossgeom.distributed import ALONE, Ranks

MEMORY_BUDGET = 2 * 2**30  # bytes that are kept beside what is needed, where no budget was given
CPU = torch.device("cpu")
MEMINFO = Path("/proc/meminfo")
OF_GROUP = Path("/sys/fs/cgroup")  # of a container, which may have less than the machine


class MemoryBudgetError(MemoryError):
    """A measurement needs more memory than its budget, or than the machine has."""


def _nothing() -> None:
    """Say that there is nothing to let go of."""


@dataclass(frozen=True, eq=False)
class Memory:
    """An account of what is held beyond model and data, in bytes.

    What is needed is held all along, or for one step after another, of which the largest counts.
    What is held besides makes products cheaper, and is what the budget leaves. All are estimates
    from a look at a few examples, meant to be too large rather than too small; what the process
    takes for its libraries does not count. On a CPU they have room for the gaps that the allocator
    of the C library keeps: 1.1 to 1.7 times what was in use at a time, in what was measured.
    Solvers that work on blocks of probes, such as :func:`lossgeom.trace` and
    :func:`lossgeom.spectral_density`, put down the blocks that they multiply, and not what they
    hold of their own; norms of Jacobians and tangent kernels put down nothing.

    Attributes:
        budget: for all of it; 0 for as little as possible, None for 2 GiB besides what is needed.
        device: where it is taken.
        all_along: what is needed all the time, by what it is.
        steps: what is needed for a time, by what for.
        besides: what is held to be faster, by what it is.
        gives_way: a reference to what lets go of some of that where something else is to be held.
        ranks: the processes that hold it, each on its own, and decide together what there is room
            for.

    >>> memory = Memory(10 * 2**20)
    >>> memory.all_along["a copy of the parameters"] = 2 * 2**20
    >>> memory.steps.update({"a comparison": 3 * 2**20, "a product": 5 * 2**20})
    >>> memory.least, memory.room, memory.announced
    (7340032, 3145728, 10485760)
    >>> memory.steps["a product"] = 9 * 2**20
    >>> memory.check()
    Traceback (most recent call last):
    ...
    lossgeom.linalg.memory.MemoryBudgetError: a measurement needs at least 11 MB (a copy of the \
parameters: 2 MB; a product: 9 MB), and memory_budget=10485760 is 10 MB; give it that much, or 0 \
for as little as possible, or batches of fewer examples
    """

    budget: int | None = None
    device: torch.device = CPU
    all_along: dict[str, int] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)
    besides: dict[str, int] = field(default_factory=dict)
    gives_way: Callable[[], Callable[[], object] | None] = field(default=_nothing, repr=False)
    ranks: Ranks = field(default=ALONE, repr=False)

    @property
    def least(self) -> int:
        """What is needed."""
        return sum(self.all_along.values()) + max(self.steps.values(), default=0)

    @property
    def room(self) -> int:
        """What may be held besides, and is not yet."""
        leaves = MEMORY_BUDGET if self.budget is None else self.budget - self.least
        return max(0, leaves - sum(self.besides.values()))

    @property
    def announced(self) -> int:
        """What is held at most."""
        return self.least + sum(self.besides.values()) + self.room

    def check(self) -> None:
        """Raise where what is needed does not fit.

        Raises:
            MemoryBudgetError: with all numbers.
        """
        if self.budget and self.least > self.budget:
            raise MemoryBudgetError(
                f"{self._said()}, and memory_budget={self.budget} is {_size(self.budget)}; give it "
                "that much, or 0 for as little as possible, or batches of fewer examples"
            )
        free, needed = free_memory(self.device), max(self.steps.values(), default=0)
        if free is not None and needed > free:
            raise MemoryBudgetError(
                f"{self._said()}, and {self.device} has {_size(free)} left; give batches of fewer "
                "examples, or measure in fewer parameters (parameters='head.*')"
            )

    def vectors(self, each: int, most: int) -> int:
        """How many vectors of so many bytes a solver may hold, up to a number.

        Without a budget half of what the machine has free may go into them.
        """
        free = (free_memory(self.device) or 0) if self.budget is None else 0
        return min(most, *self.ranks.gathered(max(self.room, free // 2) // max(each, 1)))

    def for_vectors(self, each: int, least: int, on: torch.device | str | None = None) -> Memory:
        """The account of the device that is to hold vectors, of which so many are needed.

        Where none is given it is this one's, or the CPU if a GPU without a budget has no room.
        """
        there = self.device if on is None else torch.device(on)
        if on is None and self.budget is None and self.device.type != "cpu":
            there = there if self.vectors(each, least) == least else CPU
        return self if there == self.device else Memory(device=there, ranks=self.ranks)

    @contextmanager
    def holding(self, what: str, nbytes: int, **settings: object) -> Iterator[None]:
        """Put down what is held for a time, before it is taken.

        Args:
            what: it is.
            nbytes: that it takes.
            settings: of what it is for, the same in all processes.

        Raises:
            MemoryBudgetError: where a budget was given, or the machine has less.
        """
        self.besides[what] = nbytes
        try:
            alike = {f"{name}=": str(setting) for name, setting in settings.items()}
            self.ranks.together(partial(self._make_room, what, nbytes), lambda _: alike)
            yield
        finally:
            del self.besides[what]

    def _make_room(self, what: str, nbytes: int) -> None:
        if (give_way := self.gives_way()) is not None:
            give_way()
        held, free = self.least + sum(self.besides.values()), free_memory(self.device)
        for needed, limit in ((held, self.budget), (nbytes, free)):
            if limit and needed > limit:
                more = f"{self._said()} and {_size(nbytes)} for {what}"
                raise MemoryBudgetError(f"{more}, of which {_size(limit)} are there")

    def _said(self) -> str:
        step = sorted(self.steps.items(), key=lambda item: item[1])[-1:]
        parts = "; ".join(f"{what}: {_size(n)}" for what, n in (*self.all_along.items(), *step))
        return f"a measurement needs at least {_size(self.least)} ({parts})"

    def __str__(self) -> str:
        lines = [f"at least {_size(self.least)}, at most {_size(self.announced)}"]
        for title, parts in (("", self.all_along), (" for a time", self.steps)):
            lines += [f"  {what}: {_size(n)}{title}" for what, n in parts.items()]
        lines += [f"  {what}: {_size(n)}, to be faster" for what, n in self.besides.items() if n]
        return "\n".join(lines)


def _size(nbytes: int) -> str:
    return f"{nbytes / 2**20:,.0f} MB" if nbytes >= 2**20 else f"{nbytes / 2**10:,.0f} kB"


def free_memory(device: torch.device) -> int | None:
    """The bytes that a device has left for this process; none where it does not say."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = dict(line.split(":") for line in MEMINFO.read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
    try:
        most, now = (int((OF_GROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        cache = int((OF_GROUP / "memory.stat").read_text().split("\nfile ")[1].split()[0])
    except (OSError, IndexError, ValueError):  # such as "max"
        return free
    return min(free, max(0, most - now + cache))


def worth_holding(device: torch.device, on_cpu: int) -> int:
    """Bytes to work on at a time: on a GPU, where more is faster, a part of what is free."""
    return torch.cuda.mem_get_info(device)[0] // 4 if device.type == "cuda" else on_cpu
