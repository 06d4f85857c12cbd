"""What callbacks share: one watch after another, and what each of them has measured anew."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from lossgeom.distributed import ALONE, Ranks, checked_ranks
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
        settings: its others; ``ranks`` may be a function, which is called where a run begins.

    Attributes:
        run: the last one; ``None`` before the first.
        loss: that is measured.
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
        self.loss, self._asked = loss, (batches, record, every)
        self._settings = dict(settings)
        self._news: dict[int, dict[str, float]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "run": None}

    @property
    def shared(self) -> bool:
        """Whether all processes watch, each on its share of the data."""
        return self._ranks.size > 1

    @property
    def _ranks(self) -> Ranks:
        ranks = self._settings.get("ranks", ALONE)
        return checked_ranks(ranks() if callable(ranks) else ranks)

    def begin(self, model: nn.Module, optimizers: Sequence[Optimizer], **known: Any) -> None:
        """Watch a run that begins, with what is known of it unless the settings say otherwise."""
        self.end(BaseException)  # a run that nobody has ended; its record stays open
        settings = {**known, **self._settings, "ranks": self._ranks}
        self.run = watch(model, optimizers, self.loss, *self._asked, **settings)
        self.run.record.mirrors.add([self])  # in all processes, which know the same

    def write(self, row: Mapping[str, Any]) -> None:
        if numbers := logged(row):
            self._news.setdefault(row["step"], {}).update(numbers)

    def close(self) -> None:
        """Nothing is open."""

    def news(self) -> dict[int, dict[str, float]]:
        """What was measured since this was asked, by step and the names it is logged under."""
        news, self._news = self._news, {}
        return news

    def end(self, error: type[BaseException] | None = None) -> None:
        """Take the hooks off the optimisers, and finish the record as what the run has become."""
        if self.run is not None:
            self.run.__exit__(error)
