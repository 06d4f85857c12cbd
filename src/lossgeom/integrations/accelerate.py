"""Watching a loop of one's own with an Accelerator."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from lossgeom.distributed import ALONE, checked_ranks
from lossgeom.losses import LossLike
from lossgeom.messages.extras import required
from lossgeom.mirrors import Mirror, logged
from lossgeom.recording.mirror import checked_mirrors
from lossgeom.recording.monitor import watch
from lossgeom.recording.record import Record
from lossgeom.recording.schedule import Schedule
from lossgeom.recording.watch import Watch

required("accelerate")


@dataclass(frozen=True)
class _Trackers(Mirror):
    """Writes rows to the trackers of an accelerator."""

    accelerator: Any

    def write(self, row: Mapping[str, Any]) -> None:
        if numbers := logged(row):
            self.accelerator.log(numbers, step=row["step"])

    def close(self) -> None:
        """They are the accelerator's."""


def monitor(
    accelerator: Any,
    model: nn.Module,
    optimizers: Optimizer | Sequence[Optimizer],
    loss: LossLike,
    batches: Iterable[Any],
    record: Record | str | Path,
    every: int | Collection[int] | Schedule = 100,
    *,
    mirrors: Sequence[Mirror] = (),
    **settings: Any,
) -> Watch | ExitStack:
    """Watch a loop with an Accelerator, as :func:`lossgeom.watch` does, in its main process.

    What was measured also goes to the accelerator's trackers, by ``accelerator.log``, as
    ``lossgeom/sharpness`` and so on, at the step that it is of.

    Args:
        accelerator: an ``accelerate.Accelerator``.
        model: as ``prepare`` returns it, or as it was before.
        optimizers: likewise.
        loss: that it trains by, see :func:`lossgeom.watch`.
        batches: to measure on, in the main process alone; with ``ranks=lg.ranks()`` among the
            settings, in each process its share.
        record: a folder, or a record.
        every: which steps are due.
        mirrors: where else rows go.
        settings: others of :func:`lossgeom.watch`.

    Returns:
        What watches; in other processes than the main one, which wait for it, an empty context.
        Both are good for ``with``, and have ``close()``.

    Raises:
        ImportError: where Accelerate is not installed, with the extra that brings it.

    >>> import tempfile, torch
    >>> from accelerate import Accelerator
    >>> data = [(torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [2.0]]))]
    >>> accelerator, model = Accelerator(cpu=True), torch.nn.Linear(1, 1, bias=False)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    >>> model, optimizer = accelerator.prepare(model, optimizer)
    >>> folder = tempfile.mkdtemp()
    >>> with monitor(
    ...     accelerator, model, optimizer, "squared_error", data, folder, 1, budget=None
    ... ) as run:
    ...     for x, y in data * 3:
    ...         optimizer.zero_grad()
    ...         accelerator.backward(0.5 * (model(x) - y).square().mean())
    ...         optimizer.step()
    >>> run.record.series("sharpness")
    ([0, 1, 2], [2.5, 2.5, 2.5])
    """
    shared = checked_ranks(settings.get("ranks", ALONE)).size > 1
    if not (accelerator.is_main_process or shared):
        return ExitStack()
    mirrors = [*checked_mirrors(mirrors), _Trackers(accelerator)]
    return watch(model, optimizers, loss, batches, record, every, mirrors=mirrors, **settings)
