"""A function of parameters and a batch, evaluated at many parameters."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from lossgeom.autodiff.recorded_products import NotRecordable, Tape, record
from lossgeom.batches import Batch
from lossgeom.problem import Problem
from lossgeom.problem.agreement import agree

OfBatch = Callable[[Tensor, Batch], Tensor]

SMALL = 2**18  # parameters of a network whose modules take more time than its arithmetic
ROOM = 64 * 2**20  # bytes for what recordings hold, such as the examples
PAYS = 16  # calls with each batch from which on a recording does
AGAIN = 64  # calls after which a replay is compared once more
SAME = 1e-6  # relative, of the same operations in the same order


class Replayed:
    """A function of theta and a batch, replayed for a small network, which spares it its modules.

    What it does on a batch is recorded in the first call. The second, at other parameters, compares
    a replay with the function, and so does one of 64 later on. What cannot be recorded, or comes
    out otherwise, is not replayed.

    Args:
        problem: whose network it calls, as it is inside transforms.
        function: what is replayed; it may raise where numbers are not finite.
        unchecked: the same without looking at numbers, which cannot be recorded.
        calls: with each batch.
    """

    def __init__(self, problem: Problem, function: OfBatch, unchecked: OfBatch, calls: int) -> None:
        self._function, self._unchecked, self._room = function, unchecked, ROOM
        self._pays = calls >= PAYS and problem.theta.numel() <= SMALL and not problem.autocast
        self._tapes: dict[int, Tape | None] = {}
        self._calls: dict[int, int] = {}

    def __call__(self, theta: Float[Tensor, " P"], batch: Batch) -> Tensor:
        """Evaluate the function, or replay it."""
        if not self._pays:
            return self._function(theta, batch)
        place = batch.index
        number = self._calls[place] = self._calls.get(place, -1) + 1
        tape = self._tapes.get(place)
        if tape is not None and (number - 1) % AGAIN:
            return tape(theta)
        found = self._function(theta, batch)
        if not number:
            self._tapes[place] = self._recorded(theta, batch)
        elif tape is not None and not agree(tape(theta), found, SAME):
            self._tapes[place] = None
        return found

    def _recorded(self, theta: Tensor, batch: Batch) -> Tape | None:
        if self._room <= 0:
            return None
        try:
            tape, _ = record(lambda at: self._unchecked(at, batch), theta)
        except (NotRecordable, RuntimeError):  # of torch, the latter
            return None
        self._room -= sum(tape.storages.values())
        return tape
