"""Going on with a record: what it holds already, beside a run that comes to these steps again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lossgeom.problem import NonFiniteError, Problem
from lossgeom.recording.record import Record
from lossgeom.recording.record_format import RecordError
from lossgeom.recording.rows import SUPERSEDES

SAME_LOSS = 1e-3  # relative; what rounding on another machine may change
SAME_RATE = 1e-6


class GoingOn:
    """Keeps a record to one trajectory, where a run goes on with what another process has begun.

    From a checkpoint, rows of its step and later ones are superseded: they are of steps that were
    made after it, and are lost. From step 0, where a run is gone through again, they stand as long
    as loss and learning rate are the same; from where they are not, they are superseded. Where a
    checkpoint may be of step 0, it has to be said.

    Args:
        record: what is gone on with.
        first_step: of the run that goes on.
        from_checkpoint: whether it goes on from one.

    Attributes:
        joined: whether the run is known to be the one of the record.
    """

    def __init__(self, record: Record, first_step: int, *, from_checkpoint: bool) -> None:
        self.joined = not record.measured
        self._record, self._first, self._from_checkpoint = record, first_step, from_checkpoint
        self._lines = record.written
        later = [row for row in record.rows() if "metric" in row and row["step"] >= first_step]
        self._is_held = bool(later)
        self._losses = {row["step"]: row for row in later if row["metric"] == "loss"}

    def compares(self, step: int) -> bool:
        """Whether a step is to be compared with what is held."""
        return not self.joined or step in self._losses

    def compare(self, step: int, problem: Problem, lr: float | None) -> str | None:
        """Compare a step with what is held of it, and supersede what is not of this run.

        Args:
            step: that is made.
            problem: where it began.
            lr: its learning rate; ``None`` where there is no one number.

        Returns:
            What is superseded, where that is a surprise.

        Raises:
            RecordError: where the first one has another loss, or another learning rate at step 0.
        """
        held = self._losses.get(step)
        if self._from_checkpoint and step > self._first:  # what else was done there is not known
            held = None
        compared = None if self._from_checkpoint else lr
        told = None if held is None else _difference(held, problem, compared)
        if told and not self.joined:
            raise RecordError(
                f"{self._record.path} holds another run: at step {step} {told}; choose another "
                "folder, or say first_step= where training goes on from a checkpoint"
            )
        if self._from_checkpoint and not self.joined and self._is_held:
            self._supersede(self._first)
        self.joined = True
        if not told:
            return None
        self._supersede(step)
        return (
            f"{self._record.path} holds another run from step {step} on, where {told}; what it "
            "holds from there on is superseded by this one"
        )

    def _supersede(self, step: int) -> None:
        """Append a row that says from which step on the rows that were there stand no longer."""
        self._record.append({"step": step, SUPERSEDES: self._lines})
        self._losses = {}


def give_back(record: Record) -> None:
    """Leave a record with the status with which it was found."""
    if record.reopened is not None and not record.is_over:
        record.finish(record.reopened, ended=record.manifest.get("ended"))
    record.close()


def _difference(held: Mapping[str, Any], problem: Problem, lr: float | None) -> str | None:
    """How a step is another one than the one that is held, if it is."""
    rate, loss = held.get("lr"), held["value"]
    if rate is not None and lr is not None and not math.isclose(rate, lr, rel_tol=SAME_RATE):
        return f"its learning rate was {rate:.6g}, and now it is {lr:.6g}"
    now = _loss(problem) if math.isfinite(loss) else loss
    if math.isfinite(loss) and not math.isclose(loss, now, rel_tol=SAME_LOSS):
        return f"its loss was {loss:.6g}, and now it is {now:.6g}"
    return None


def _loss(problem: Problem) -> float:
    try:
        return problem.loss()
    except NonFiniteError:
        return math.nan
