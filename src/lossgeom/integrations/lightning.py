"""A callback for the Trainer of Lightning, of either of its packages."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lossgeom.integrations.watched_runs import WatchedRuns
from lossgeom.losses import LossLike
from lossgeom.messages.extras import required
from lossgeom.recording.record import Record
from lossgeom.recording.schedule import Schedule
from lossgeom.recording.watch import Watch

ONLY_OLD = find_spec("lightning") is None and find_spec("pytorch_lightning") is not None
pl = required("pytorch_lightning" if ONLY_OLD else "lightning.pytorch")
Callback: Any = pl.Callback


class LossGeometry(Callback):  # type: ignore[misc]
    """Watches the optimisers of a fit as :func:`lossgeom.watch` does: ``Trainer(callbacks=[...])``.

    It begins where training does, after the sanity check, with the optimisers that
    ``configure_optimizers`` has made, in their order; a step is one of the last of them, also in
    manual optimisation. A fit that goes on from a checkpoint, or after another fit of the same
    trainer, goes on in the record. Where a fit raises an error, its record ends as ``"failed"``.

    What was measured goes to every logger of the trainer, at the step that it is of, as
    ``lossgeom/sharpness`` and so on, and into ``trainer.callback_metrics``, for other callbacks, if
    all processes know it. The numbers of several of these have the same names there; their records
    tell them apart.

    In data-parallel training the first process measures, and the others wait for it. With
    ``ranks=lossgeom.ranks``, without brackets, since their group is made later, all of them measure
    together, each on batches of its own, and know what was measured.

    Args:
        loss: that the module trains by, where its ``forward`` gives outputs; otherwise with
            ``forward=``, which may call its ``training_step``.
        batches: to measure on, see :func:`lossgeom.watch`.
        record: a folder, or a record.
        every: which steps are due.
        settings: others of :func:`lossgeom.watch`.

    Raises:
        ImportError: where Lightning is not installed, with the extra that brings it.

    Errors of settings are raised where training begins, as :func:`lossgeom.watch` does.

    >>> import tempfile, torch
    >>> class Line(pl.LightningModule):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.layer = torch.nn.Linear(1, 1, bias=False)
    ...     def forward(self, x):
    ...         return self.layer(x)
    ...     def training_step(self, batch, index):
    ...         x, y = batch
    ...         return 0.5 * (self(x) - y).square().mean()
    ...     def configure_optimizers(self):
    ...         return torch.optim.SGD(self.parameters(), lr=0.5)
    >>> x = torch.tensor([[1.0], [2.0]])
    >>> data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, x), batch_size=2)
    >>> geometry = LossGeometry("squared_error", data, tempfile.mkdtemp(), every=1, budget=None)
    >>> trainer = pl.Trainer(
    ...     max_epochs=3, callbacks=[geometry], accelerator="cpu", logger=False,
    ...     enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
    >>> trainer.fit(Line(), data)
    >>> geometry.run.record.series("sharpness")
    ([0, 1, 2], [2.5, 2.5, 2.5])
    """

    def __init__(
        self,
        loss: LossLike,
        batches: Iterable[Any],
        record: Record | str | Path,
        every: int | Collection[int] | Schedule = 100,
        **settings: Any,
    ) -> None:
        self._runs = WatchedRuns(loss, batches, record, every, settings)
        self._step: int | None = None

    @property
    def run(self) -> Watch | None:
        """What watches, or has watched the last fit; ``None`` in processes that do not measure."""
        return self._runs.run

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.is_global_zero or self._runs.shared:
            # The trainer's own count is of the steps of all optimisers.
            went_on = trainer.global_step if self._step is None else self._step
            first_step = went_on if trainer.global_step else 0
            self._runs.begin(_uncompiled(pl_module), trainer.optimizers, first_step=first_step)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if self.run is None:
            return
        self._step = self.run.step
        for step, numbers in self._runs.news().items():
            if trainer.world_size == 1 or self._runs.shared:  # all have to decide the same
                pl_module.log_dict(numbers, logger=False)
            for logger in trainer.loggers:  # log_dict leaves out steps at which nothing is logged
                logger.log_metrics(numbers, step=step)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        self._runs.end()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:  # noqa: ARG002
        self._runs.end(type(exception))

    @property
    def state_key(self) -> str:
        """Tells callbacks with different records from each other, in checkpoints."""
        return str(self._generate_state_key(record=str(self._runs.folder)))

    def state_dict(self) -> dict[str, Any]:
        return {"step": self._step if self.run is None else self.run.step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._step = state_dict["step"]


def _uncompiled(module: Any) -> Any:
    """A module with the methods of its class, in whose place Lightning puts compiled ones."""
    if module._compiler_ctx is None:
        return module
    plain = copy.copy(module)  # of the same parameters and modules
    for name in module._compiler_ctx:
        vars(plain).pop(name.removeprefix("original_"), None)
    return plain
