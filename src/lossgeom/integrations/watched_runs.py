"""What callbacks share: one watch after another, and what each of them has measured anew."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from lossgeom.estimate import Estimate
from lossgeom.losses import LossLike
from lossgeom.recording.monitor import watch
from lossgeom.recording.record import Record
from lossgeom.recording.schedule import Schedule
from lossgeom.recording.watch import Watch


class WatchedRuns:
    """Watches runs, one after another, with the same settings.

    What is made of it by ``copy`` or ``pickle`` has the settings, and no run that goes on.

    Args:
        loss, batches, record, every, settings: see :func:`lossgeom.watch`.

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
        self._told: Mapping[str, Estimate] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "run": None, "_told": {}}

    def begin(self, model: nn.Module, optimizers: Sequence[Optimizer], first_step: int) -> None:
        """Watch a run that begins, at this step unless the settings say another one."""
        settings = {"first_step": first_step, **self._settings}
        self.run = watch(model, optimizers, *self._asked, **settings)
        self._told = self.run.last

    def news(self) -> dict[str, float]:
        """The finite numbers of a step that was measured since this was asked, by their names."""
        if self.run is None or self.run.last is self._told:
            return {}
        self._told = self.run.last
        numbers = {f"lossgeom/{name}": float(each) for name, each in self._told.items()}
        return {name: number for name, number in numbers.items() if math.isfinite(number)}

    def end(self, error: type[BaseException] | None = None) -> None:
        """Take the hooks off the optimisers, and finish the record as what the run has become."""
        if self.run is not None:
            self.run.__exit__(error)
