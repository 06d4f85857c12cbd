"""Measuring the steps of live optimisers, as their hooks tell of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from torch import Tensor
from torch.optim import Optimizer

from lossgeom.distributed import OtherRankError
from lossgeom.estimate import Estimate
from lossgeom.metrics import GradientCosine, Memory, Metric, Step, StepMetric
from lossgeom.problem import Problem
from lossgeom.problem.live import flat_gradient, live_theta, take_live_buffers
from lossgeom.recording.budget import BUDGET, Budget
from lossgeom.recording.going_on import GoingOn, give_back
from lossgeom.recording.measuring import (
    ROWS_SAY_SO,
    STEP,
    Failures,
    OnError,
    check_same,
    checked_metrics,
    described,
    end_block,
    measure_into,
    note,
    unmeasured,
    warn_of_mode,
    write_failed,
)
from lossgeom.recording.optimizer_hooks import Steps
from lossgeom.recording.record import Record
from lossgeom.recording.record_format import RecordError
from lossgeom.recording.schedule import Schedule, is_due
from lossgeom.recording.verdicts import verdict_of
from lossgeom.recording.watch_lines import (
    LiveLine,
    count_of,
    no_step_in_words,
    out_of_order_in_words,
    skipped_in_words,
    values_in_words,
)
from lossgeom.recording.watched import check_settings, is_full_batch, of_others, tell
from lossgeom.stability import OptimizerState, Verdict, optimizer_state, unwrapped_optimizer

STOPPED = "nothing more is measured"


class Watch:
    """Measures steps of optimisers while a loop of yours makes them.

    Made by :func:`lossgeom.watch`, or by :meth:`lossgeom.Tracker.attach`. A step that is due is
    measured when the last optimiser has made it: at the parameters before it, with the change that
    was made, and with the learning rate that it was made with. Steps are counted by the last
    optimiser, so several batches whose gradients are accumulated are one step, and what a
    ``GradScaler`` leaves out is not measured. Nothing that trains is changed, and an error in a
    metric ends no training: it is a row with the status ``"failed"``, and the first one a warning.
    Nor does a record that cannot be written any more, such as on a full disk: that is a warning.
    What a CUDA graph replays runs no hooks, and is not seen.

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
        memory: Memory | None = None,
    ) -> None:
        self._ranks, self._failures = problem.ranks, Failures(on_error, problem.ranks)
        if not optimizers:
            raise ValueError("expected at least one optimiser to watch, got none")
        check_settings(full_batch, first_step)
        self.problem, self.metrics = problem, checked_metrics(metrics)
        check_same(problem.ranks, on_error=on_error, full_batch=full_batch, first_step=first_step)
        self.record, self.due = record, due
        self.optimizers = tuple(map(unwrapped_optimizer, optimizers))
        self.last: dict[str, Estimate] = {}
        self.skipped = self._left_out = 0  # in all, and since the last one that was measured
        self._budget, self._full_batch, self._live = budget or Budget(None), full_batch, live
        self._memory = Memory() if memory is None else memory
        self._cosines = record.series(GradientCosine.name)[1]
        self._size = problem.theta.numel()
        self._kinds = [type(each).__name__ for each in self.optimizers]
        state = optimizer_state(problem, *self.optimizers)  # raises what it would at every step
        self._first = self._measured = first_step  # which was seen first, and measured last
        self._stopped: RecordError | None = None
        from_checkpoint = bool(first_step) or memory is not None
        self._going_on = GoingOn(record, first_step, from_checkpoint=from_checkpoint)
        self._followed = False  # whether a step has begun that is measured at its end
        self._others = of_others(problem, self.optimizers)
        if self._others:
            self._failures.warn("others", self._others)
        if self._going_on.joined:  # else it may be the record of another run
            self._tell(state, full_batch)
        self._steps = Steps(self.optimizers, self, first_step)

    def __repr__(self) -> str:
        return f"Watch({', '.join(self._kinds)}, step={self.step}, {self.record!r})"

    def __str__(self) -> str:
        if self._ranks.rank:  # else it is printed once for each process
            return f"{self.record.path}: see rank 0, which says the same for all"
        start = f", seen from step {self._first}" if self._first else ""
        lines = [f"{self.record.path}: {' and '.join(self._kinds)}, step {self.step}{start}"]
        if self.last:
            lines.append(f"measured at step {self._measured}: {values_in_words(self.last)}")
        if self._failures.written:
            lines.append(f"{count_of(self._failures.written, 'measurement')} failed; rows say why")
        if self._stopped:
            lines.append(f"{STOPPED}: {self._stopped}")
        if self.skipped:
            lines.append(skipped_in_words(self.skipped, self._budget.share))
        lines.append(str(self.verdict()))
        return "\n".join(line for line in lines if line)

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._end(error)
        if error is None and self.step == self._first and not self.record.measured:
            self._failures.warn("no step", no_step_in_words(self.optimizers, self._steps.stepped))

    def close(self) -> None:
        """Take the hooks off the optimisers, and finish the record."""
        self._end(None)

    @property
    def step(self) -> int:
        """The number of the next step."""
        return self._steps.number

    @property
    def failures(self) -> int:
        """How many measurements have raised errors."""
        return self._failures.count

    def verdict(self) -> Verdict:
        """Say where the run is relative to the edge, see :func:`lossgeom.verdict_of`."""
        if self._stopped and not self._going_on.joined:
            return Verdict("not stated", "nothing of this run was measured")
        return verdict_of(self.record)

    def _end(self, error: type[BaseException] | None) -> None:
        self._steps.take_off()
        self._memory.clear()
        live, self._live = self._live, None
        try:
            if not self.record.is_over:
                self._tell_left_out()
            if live is not None:
                live.end(str(self))
            if self._going_on.joined:
                end_block(self.record, error)
            else:
                give_back(self.record)
        except (RecordError, OSError) as ended:  # what is trained is not lost for that
            self.record.close()
            self._failures.warn("end", f"{self.record.path} is not finished: {described(ended)}")

    # What hooks tell

    def wants(self, step: int) -> bool:
        """Whether to measure a step."""
        try:
            return is_due(self.due, step, self._ranks)
        except Exception as error:
            self._failures.add("the schedule", step, error, "this step is left out")
            return False

    def begin(self, step: int) -> Problem | None:
        """Copy the model before a step, unless that would be beyond the budget."""
        self._followed = False
        new = unmeasured(self.record, self.metrics, step)
        if not new and not self._going_on.compares(step):
            return None
        stopped, allowed = self._ranks.from_first((bool(self._stopped), self._budget.allows()))
        if stopped or not allowed:
            self.skipped += (left_out := bool(new) and not stopped)
            self._left_out += left_out
            return None
        with self._budget.spending():
            before = self._ranks.together(self.problem.refreshed, level=STEP)
        self._followed = True
        if self._size != before.theta.numel():  # some are trained that were not before
            self._size = before.theta.numel()
            self._memory.clear()
        return before

    def end(
        self,
        step: int,
        begun: Problem,
        gradients: Mapping[int, Tensor] | None,
        out_of_order: bool,
    ) -> None:
        """Measure a step from the copy of the model before it."""
        if out_of_order:
            self._failures.warn("order", out_of_order_in_words(step, self._kinds))

        def measured() -> None:
            take_live_buffers(begun)  # of the step's forward pass, which a closure makes in it
            taken = Step(
                before=begun,
                update=live_theta(begun) - begun.theta,
                state=optimizer_state(begun, *self.optimizers),
                gradient=None if gradients is None else flat_gradient(begun, gradients),
                memory=self._memory,
            )
            if self._going_on.compares(step):
                self._compare(step, taken)
            self._tell_left_out()
            self._measure(step, taken)

        self._followed = False
        with self._budget.spending(more=True):
            self._ranks.together(measured, level=STEP)
        if self._live is not None:
            self._live.show(f"step {step}: {values_in_words(self.last)}")

    def failed(self, step: int, error: Exception) -> None:
        """Write down that nothing could be measured at a step, or raise the error."""
        if self._followed:  # and is waited for by others at the end of the step
            self._followed = False
            with suppress(OtherRankError):
                self._ranks.together(lambda: None, level=STEP)
        if isinstance(error, RecordError):  # nothing can be written there any more
            self._stopped = error
        self._failures.add("the step", step, error, STOPPED if self._stopped else ROWS_SAY_SO)
        if not self._stopped:
            write_failed(self.record, step, self.metrics, error)

    def _compare(self, step: int, taken: Step) -> None:
        """Let only this run stand in the record."""
        told = self._going_on.compare(step, taken.before, taken.state.lr)
        self._cosines = self.record.series(GradientCosine.name)[1]
        if told:
            self._failures.warn("other", told)

    def _tell(self, state: OptimizerState, full_batch: bool | None) -> None:
        """Write into the manifest what is known of the optimisers."""
        tell(self.record, state, full_batch, first_step=self._first, budget=self._budget.share)
        note(self.record, *filter(None, [self._others]))

    def _measure(self, step: int, taken: Step) -> None:
        metrics, asked = list(self.metrics), self._full_batch
        names = [metric.name for metric in metrics]
        if asked is None and taken.gradient is not None and GradientCosine.name not in names:
            metrics.append(GradientCosine())  # tells whether training is on what is measured on
        new = unmeasured(self.record, metrics, step)
        found = measure_into(self.record, step, new, taken, self._failures)
        if found:
            self.last, self._measured = found, step
        if GradientCosine.name in found:
            self._cosines.append(found[GradientCosine.name].value)
        self._tell(taken.state, is_full_batch(self._cosines) if asked is None else asked)
        warn_of_mode(self.record, taken.before, "rows")

    def _tell_left_out(self) -> None:
        """Append a row that says how many due steps were left out before the next one."""
        if self._left_out:
            self.record.append({"step": self.step, "skipped": self._left_out, "because": BUDGET})
            self._left_out = 0
