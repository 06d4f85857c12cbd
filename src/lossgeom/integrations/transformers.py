"""Watching what the Trainer of Hugging Face trains."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from lossgeom.integrations.watched_runs import WatchedRuns
from lossgeom.losses import LossLike
from lossgeom.messages.extras import required
from lossgeom.recording.record import Record
from lossgeom.recording.schedule import Schedule
from lossgeom.recording.watch import Watch

hf = required("transformers")
TrainerCallback: Any = hf.TrainerCallback


class LossGeometryCallback(TrainerCallback):  # type: ignore[misc]
    """Watches the optimiser of a Trainer as :func:`lossgeom.watch` does.

    Give it to a Trainer, ``Trainer(callbacks=[...])``, or let :func:`monitor` do so, with which the
    numbers are also among the Trainer's own. A run that goes on with ``resume_from_checkpoint``
    goes on in the record. In data-parallel training the first process measures, and the others
    wait for it; with ``ranks=lossgeom.ranks()`` all of them measure together, each on batches of
    its own.

    The Trainer tells callbacks of no error. A record ends as ``"failed"`` where ``train`` is called
    in a ``with`` block of this, ``with monitor(trainer, ...) as geometry:``, and stays open to be
    gone on with otherwise.

    Args:
        loss: that the model trains by: its own, such as ``"next_token_cross_entropy"``. One that is
            given by its name has the ``label_smoothing_factor`` of the arguments, unless
            ``label_smoothing=`` says another one.
        batches: to measure on, see :func:`lossgeom.watch`.
        record: a folder, or a record.
        every: which steps are due.
        settings: others of :func:`lossgeom.watch`.

    Attributes:
        trainer: that logs what is measured; ``None`` where only the record has it.

    Raises:
        ImportError: where Transformers is not installed, with the extra that brings it.

    Errors of settings are raised where training begins, as :func:`lossgeom.watch` does.
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
        self.trainer: Any = None

    @property
    def run(self) -> Watch | None:
        """What watches, or has watched the last run; ``None`` in processes that do not measure."""
        return self._runs.run

    def __enter__(self) -> LossGeometryCallback:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._runs.end(error)

    def on_train_begin(self, args: Any, state: Any, control: Any, **of_run: Any) -> None:  # noqa: ARG002
        if not (state.is_world_process_zero or self._runs.shared):
            return
        known = {"first_step": state.global_step}
        if isinstance(self._runs.loss, str):  # others have their own
            known["label_smoothing"] = args.label_smoothing_factor
        self._runs.begin(of_run["model"], [of_run["optimizer"]], **known)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        asked = control.should_log
        for numbers in self._runs.news().values():
            if self.trainer is not None:
                # That of a subclass may have more to log, which it takes an average of until then.
                hf.Trainer.log(self.trainer, numbers)
        control.should_log = asked

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        self._runs.end()


def monitor(
    trainer: Any,
    loss: LossLike,
    batches: Iterable[Any],
    record: Record | str | Path,
    every: int | Collection[int] | Schedule = 100,
    **settings: Any,
) -> LossGeometryCallback:
    """Watch what a Trainer trains, as :func:`lossgeom.watch` does, from its next ``train`` on.

    What was measured goes to all that the Trainer reports to, such as TensorBoard, and into
    ``trainer.state.log_history``, as ``lossgeom/sharpness`` and so on, at the step that it is of.

    Args:
        trainer: a ``transformers.Trainer``; this adds a callback to it.
        loss: see :class:`LossGeometryCallback`.
        batches: to measure on, see :func:`lossgeom.watch`.
        record: a folder, or a record.
        every: which steps are due.
        settings: others of :func:`lossgeom.watch`.

    Returns:
        The callback. ``run`` is what watches, with ``run.verdict()``.

    >>> import tempfile, torch
    >>> class Line(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.layer = torch.nn.Linear(1, 1, bias=False)
    ...     def forward(self, x, labels=None):
    ...         outputs = self.layer(x)
    ...         loss = None if labels is None else 0.5 * (outputs - labels).square().mean()
    ...         return {"loss": loss, "logits": outputs}
    >>> data = [{"x": torch.tensor([x]), "labels": torch.tensor([x])} for x in (1.0, 2.0)]
    >>> batch = {key: torch.stack([each[key] for each in data]) for key in ("x", "labels")}
    >>> trainer = hf.Trainer(Line(), hf.TrainingArguments(
    ...     tempfile.mkdtemp(), max_steps=3, optim="sgd", use_cpu=True, report_to="none",
    ...     save_strategy="no", disable_tqdm=True, dataloader_pin_memory=False),
    ...     train_dataset=data)
    >>> folder = tempfile.mkdtemp()
    >>> geometry = monitor(trainer, "squared_error", [batch], folder, 1, budget=None)
    >>> _ = trainer.train()
    {'lossgeom/loss': '...', 'lossgeom/sharpness': '2.5', ...}
    >>> geometry.run.record.series("sharpness")
    ([0, 1, 2], [2.5, 2.5, 2.5])
    >>> [row["step"] for row in trainer.state.log_history if "lossgeom/sharpness" in row]
    [0, 1, 2]
    """
    geometry = LossGeometryCallback(loss, batches, record, every, **settings)
    geometry.trainer = trainer
    trainer.add_callback(geometry)
    return geometry
