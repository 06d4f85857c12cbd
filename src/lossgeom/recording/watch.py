"""Measuring the steps of live optimisers, as their hooks tell of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from lossgeom.checks import check_at_least
from lossgeom.estimate import Estimate
from lossgeom.metrics import GradientCosine, Metric, Step, StepMetric
from lossgeom.problem import Problem
from lossgeom.problem.live import flat_gradient, live_theta
from lossgeom.recording.budget import Budget
from lossgeom.recording.estimates import write_estimate
from lossgeom.recording.heard import Heard, OnError, described
from lossgeom.recording.measuring import (
    FAILED,
    NOTHING,
    checked_metrics,
    end_block,
    measure_into,
    unmeasured,
    warn_of_mode,
)
from lossgeom.recording.optimizer_hooks import Steps
from lossgeom.recording.record import Record
from lossgeom.recording.record_format import RecordError
from lossgeom.recording.schedule import At, Schedule
from lossgeom.recording.verdicts import verdict_of
from lossgeom.recording.watch_lines import LiveLine, count_of, values_in_words
from lossgeom.recording.watched import check_same_start, is_full_batch, tell
from lossgeom.stability import Verdict, optimizer_state, unwrapped_optimizer

BUDGET = "budget"  # why due steps were left out, in rows that say how many


class Watch:
    """Measures steps of optimisers while a loop of yours makes them.

    Made by :func:`lossgeom.watch`, or by :meth:`lossgeom.Tracker.attach`. A step that is due is
    measured when the last optimiser has made it: at the parameters before it, with the change that
    was made, and with the learning rate that it was made with. Steps are counted by the last
    optimiser, so several batches whose gradients are accumulated are one step, and a step that a
    ``GradScaler`` leaves out is none. Nothing that trains is changed, and an error in a metric ends
    no training: it is a row with the status ``"failed"``, and the first one a warning. What a
    CUDA graph replays runs no hooks, and is not seen.

    ``print(run)`` says where it is. At the end of a ``with`` block the hooks are gone and the
    record is finished, as ``"failed"`` if the block raised an error.

    Attributes:
        problem: the model that trains, with the loss and data to measure it on.
        metrics: what is measured.
        record: what is written to.
        due: at which steps.
        optimizers: without what wraps them.
        last: what was measured last, by the names of metrics.
        skipped: how many steps that were due were not measured, to keep to the budget.

    >>> import tempfile, torch, lossgeom as lg
    >>> model = torch.nn.Linear(2, 1)
    >>> problem = lg.Problem(model, "squared_error", [(torch.ones(4, 2), torch.zeros(4, 1))])
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> record = lg.Record.create(tempfile.mkdtemp())
    >>> tracker = lg.Tracker(problem, [lg.metrics.Sharpness()], record, every=2)
    >>> with tracker.attach(optimizer) as run:
    ...     for _ in range(3):
    ...         optimizer.step()
    >>> run.step, round(run.last["sharpness"].value, 4)
    (3, 3.0)
    >>> [(row["step"], row["lr"], row["threshold"]) for row in record.rows()]
    [(0, 0.1, 20.0), (2, 0.1, 20.0)]
    """

    def __init__(
        self,
        problem: Problem,
        metrics: Sequence[Metric | StepMetric],
        record: Record,
        due: Schedule,
        optimizers: Sequence[Optimizer],
        *,
        on_error: OnError = "record",
        budget: Budget | None = None,
        full_batch: bool | None = None,
        first_step: int = 0,
        live: LiveLine | None = None,
    ) -> None:
        self._heard = Heard(on_error)
        if not optimizers:
            raise ValueError("expected at least one optimiser to watch, got none")
        check_at_least(0, first_step=first_step)
        self.problem = problem
        self.metrics = checked_metrics(metrics)
        self.record = record
        self.due = due
        self.optimizers = tuple(map(unwrapped_optimizer, optimizers))
        self.last: dict[str, Estimate] = {}
        self.skipped = 0
        self._budget = budget or Budget(None)
        self._full_batch = full_batch
        self._live = live
        self._memory: dict[str, Any] = {}
        self._mode_is_said = False
        self._cosines = record.series(GradientCosine.name)[1]
        self._left_out = 0  # steps since the last one that was measured
        self._before: Problem | None = None
        self._size = problem.theta.numel()
        state = optimizer_state(problem, *self.optimizers)  # raises what it would at every step
        tell(record, state, full_batch, first_step=first_step, budget=self._budget.share)
        self._first = first_step
        self._steps = Steps(self.optimizers, self, first_step)

    def __repr__(self) -> str:
        kinds = ", ".join(type(each).__name__ for each in self.optimizers)
        return f"Watch({kinds}, step={self.step}, {self.record!r})"

    def __str__(self) -> str:
        kinds = " and ".join(type(each).__name__ for each in self.optimizers)
        start = f", seen from step {self._first}" if self._first else ""
        lines = [f"{self.record.path}: {kinds}, step {self.step}{start}"]
        lines.append(values_in_words(self.last))
        if self.failures:
            lines.append(f"{count_of(self.failures, 'measurement')} failed; rows say why")
        if self.skipped:
            lines.append(
                f"{count_of(self.skipped, 'due step')} not measured, to keep to "
                f"{self._budget.share:.3g} of the time; budget=None measures all"
            )
        lines.append(str(self.verdict()))
        return "\n".join(line for line in lines if line)

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._take_off()
        end_block(self.record, error)

    def close(self) -> None:
        """Take the hooks off the optimisers, and finish the record."""
        self._take_off()
        end_block(self.record, None)

    @property
    def step(self) -> int:
        """The number of the next step."""
        return self._steps.number

    @property
    def failures(self) -> int:
        """How many measurements have raised errors."""
        return self._heard.errors

    def verdict(self) -> Verdict:
        """Where the run is relative to the edge of stability, see :func:`lossgeom.verdict_of`."""
        return verdict_of(self.record)

    def _take_off(self) -> None:
        self._steps.take_off()
        with suppress(RecordError):  # of a record that is over already, or damaged
            self._tell_left_out()
            if self._live is not None:
                self._live.end(str(self))

    # What hooks tell

    def wants(self, step: int) -> bool:
        """Whether to measure a step."""
        try:
            return bool(self.due(step))
        except Exception as error:
            self._heard.error("the schedule", step, error)
            return False

    def begin(self, step: int) -> bool:
        """Copy the model before a step, unless that would be beyond the budget."""
        if step != self._first and not unmeasured(self.record, self.metrics, step):
            return False
        if not self._budget.allows():
            self.skipped += 1
            self._left_out += 1
            return False
        with self._budget.spending():
            before = self.problem.refreshed()
            if step == self._first:
                self._check_start(step, before)
        if self._size != before.theta.numel():  # some are trained that were not before
            self._size = before.theta.numel()
            self._memory.clear()
        self._before = before
        return True

    def _check_start(self, step: int, before: Problem) -> None:
        try:
            check_same_start(self.record, step, before)
        except RecordError:
            self.due = At(())
            raise

    def end(self, step: int, gradients: Mapping[int, Tensor] | None, out_of_order: bool) -> None:
        """Measure a step."""
        before, self._before = self._before, None
        if before is None:
            return
        with self._budget.spending(more=True):
            if out_of_order:
                self._heard.warn("order", self._expected_order(step))
            self._tell_left_out()
            taken = self._taken(before, gradients)
            self._measure(step, before, taken)
        if self._live is not None:
            self._live.show(f"step {step}: {values_in_words(self.last)}")

    def failed(self, step: int, error: Exception) -> None:
        """Write down that nothing could be measured at a step, or raise the error."""
        self._before = None
        self._heard.error("the step", step, error)
        message = described(error)
        if isinstance(error, (RecordError, OSError)):  # it is of the record
            return
        with suppress(RecordError, OSError):
            for metric in unmeasured(self.record, self.metrics, step):
                write_estimate(self.record, step, metric.name, NOTHING, 0.0, message, status=FAILED)

    # A step

    def _taken(self, before: Problem, gradients: Mapping[int, Tensor] | None) -> Step | Exception:
        """What the step was, or why that is not known."""
        try:
            return Step(
                before=before,
                update=live_theta(before) - before.theta,
                state=optimizer_state(before, *self.optimizers),
                gradient=None if gradients is None else flat_gradient(before, gradients),
                memory=self._memory,
            )
        except Exception as error:
            if self._heard.raises:
                raise
            return error

    def _measure(self, step: int, before: Problem, taken: Step | Exception) -> None:
        metrics = [*self.metrics, *self._of_gradient(taken)]

        def failed(name: str, error: Exception) -> None:
            self._heard.error(name, step, error)

        new = unmeasured(self.record, metrics, step)
        found = measure_into(self.record, step, new, before, taken, failed)
        self.last = found or self.last
        self._cosines += [float(found[name]) for name in (GradientCosine.name,) if name in found]
        if isinstance(taken, Step):
            asked = self._full_batch
            tell(self.record, taken.state, is_full_batch(self._cosines) if asked is None else asked)
        if self.record.for_report.notes != before.notes:
            self.record.update(notes=before.notes)
        self._mode_is_said = self._mode_is_said or warn_of_mode(self.record, before, "rows")

    def _of_gradient(self, taken: Step | Exception) -> list[StepMetric]:
        """The metric that tells whether training is on the data that is measured on."""
        asked = self._full_batch is None and isinstance(taken, Step) and taken.gradient is not None
        named = any(metric.name == GradientCosine.name for metric in self.metrics)
        return [GradientCosine()] if asked and not named else []

    # What the record is told besides

    def _tell_left_out(self) -> None:
        """Append a row that says how many due steps were left out before the next one."""
        if self._left_out:
            self.record.append({"step": self.step, "skipped": self._left_out, "because": BUDGET})
            self._left_out = 0

    def _expected_order(self, step: int) -> str:
        kinds = ", ".join(type(each).__name__ for each in self.optimizers)
        return (
            f"step {step} ended without a step of each of {kinds}: a step ends with the last of "
            "them; pass optimisers in the order in which they step"
        )
