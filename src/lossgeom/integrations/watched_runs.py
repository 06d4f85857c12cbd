"""What callbacks share: one watch after another, and what each of them has measured anew."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from lossgeom.losses import LossLike
from lossgeom.mirrors import Mirror, logged
from lossgeom.recording.monitor import watch
from lossgeom.recording.record import Record
from lossgeom.recording.schedule import Schedule
from lossgeom.recording.watch import Watch


class WatchedRuns(Mirror):
    """Watches runs, one after another, with the same settings.

    What is made of it by ``copy`` or ``pickle`` has the settings, and no run that goes on.

    Args:
        loss, batches, record, every: see :func:`lossgeom.watch`.
        settings: its others.

    Attributes:
        run: the last one; ``None`` before the first.
        folder: of the record.
    """

    def __init__(
        self,
        loss: LossLike,
        batches: Iterable[Any],
        record: Record | str | Path,
        every: int | Collection[int] | Schedule,
        settings: Mapping[str, Any],
    ) -> None:
        self.run: Watch | None = None
        self.folder = record.path if isinstance(record, Record) else Path(record)
        self._asked = (loss, batches, record, every)
        self._settings = dict(settings)
        self._news: dict[str, float] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "run": None}

    def begin(self, model: nn.Module, optimizers: Sequence[Optimizer], first_step: int) -> None:
        """Watch a run that begins, at this step unless the settings say another one."""
        self.end(BaseException)  # a run that nobody has ended; its record stays open
        mirrors = [*self._settings.get("mirrors", ()), self]
        settings = {"first_step": first_step, **self._settings, "mirrors": mirrors}
        self.run = watch(model, optimizers, *self._asked, **settings)

    def write(self, row: Mapping[str, Any]) -> None:
        self._news |= logged(row)

    def close(self) -> None:
        """Nothing is open."""

    def news(self) -> dict[str, float]:
        """What was measured since this was asked, by the names under which it is logged."""
        news, self._news = self._news, {}
        return news

    def end(self, error: type[BaseException] | None = None) -> None:
        """Take the hooks off the optimisers, and finish the record as what the run has become."""
        if self.run is not None:
            self.run.__exit__(error)
