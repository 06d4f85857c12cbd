"""How much time measuring may take beside training."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from lossgeom.messages.checks import check_number

Clock = Callable[[], float]
BUDGET = "budget"  # why due steps were left out, in rows that say how many
ALLOWANCE = 3.0  # seconds of a run; the first, cold measurement would use up a short one's share


class Budget:
    """Time that may be spent beside something that goes on.

    It is a share of all time since this was made, and an allowance of three seconds, with which
    short runs are measured at more than one step. What is about to be spent is expected to cost
    what was spent last. The first time is free to start, whatever it costs.

    Args:
        share: of all time; ``None`` for no limit, and then no decision depends on time.
        clock: that tells seconds.

    >>> now = iter(range(0, 100, 10))
    >>> budget = Budget(0.4, clock=lambda: next(now))
    >>> with budget.spending():  # from 10 to 20
    ...     pass
    >>> budget.spent, budget.allows(), budget.allows()  # 20 of 3 + 16, at 30; of 3 + 20, at 40
    (10.0, False, True)
    """

    def __init__(self, share: float | None, clock: Clock = time.perf_counter) -> None:
        if share is not None:
            check_number("budget", share, 0, 1)
        self.share = share
        self.clock = clock
        self.spent = 0.0
        self._latest: float | None = None
        self._started = clock()

    def allows(self) -> bool:
        """Whether as much as last time may be spent again."""
        if self.share is None or self._latest is None:
            return True
        total = self.clock() - self._started + self._latest
        return self.spent + self._latest <= ALLOWANCE + self.share * total

    @contextmanager
    def spending(self, *, more: bool = False) -> Iterator[None]:
        """Count what is spent in a block, as one with the last block where it is ``more`` of it."""
        started = self.clock()
        try:
            yield
        finally:
            cost = self.clock() - started
            self.spent += cost
            self._latest = cost + (self._latest or 0.0) * more


def device_clock(device: torch.device) -> Clock:
    """A clock that waits for what a device was told before."""
    if device.type != "cuda":
        return time.perf_counter

    def clock() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return clock
