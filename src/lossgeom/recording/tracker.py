"""Metrics on a schedule, written to a record."""

from __future__ import annotations

import operator
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch.optim import Optimizer

from lossgeom.estimate import Estimate
from lossgeom.messages.wording import unknown
from lossgeom.metrics import Memory, Metric, StepMetric
from lossgeom.problem import Problem
from lossgeom.problem.live import take_live_buffers
from lossgeom.recording.estimates import problem_facts
from lossgeom.recording.measuring import (
    STEP,
    OnError,
    check_ranks,
    check_same,
    checked_metrics,
    end_block,
    measure_into,
    unmeasured,
    warn_of_mode,
)
from lossgeom.recording.mirror import Mirror, checked_mirrors
from lossgeom.recording.record import Record
from lossgeom.recording.record_format import RecordError
from lossgeom.recording.schedule import Schedule, as_schedule, is_due
from lossgeom.recording.watch import Watch
from lossgeom.stability import Threshold


class Tracker:
    """Measures a model while it trains.

    At the end of a ``with`` block its record is finished, with the status ``"failed"`` if the block
    raised an error. A record that Ctrl-C or a kill ends stays open to be gone on with.

    Call it once a step. When the schedule says so, it takes the parameters that the model has
    now, measures every metric, and appends one row per metric to the record. What the record holds
    already, because a run that was stopped is gone through again, is not measured again. A NaN
    or infinite loss is written down as such.

    Args:
        problem: the model that trains, with the loss and data to measure it on.
        metrics: what to measure, see :mod:`lossgeom.metrics`; no two of one name.
        record: where to.
        thresholds: values to draw into the figures of these metrics, by their names, such as
            ``{"sharpness": lossgeom.stability_threshold(optimizer)}``. Thresholds of training go
            with a problem in the mode of training: beside one that was made without ``mode=``, of
            a model that is another one in train mode, they warn, once.
        every: when: a number of steps, a list of steps, or a schedule such as
            :class:`lossgeom.recording.schedule.Logarithmic`. For another rhythm, use a second
            tracker on the same record.
        mirrors: where else to write each row of the record from now on, see
            :mod:`lossgeom.mirrors`. One that fails is left out from then on, with a warning. They
            are closed with the record.

    Raises:
        TypeError: if record, metrics, mirrors or a step are of another type.
        ValueError: if two metrics have one name, or a threshold is of another one, or of another
            matrix, or unknown; or if the record is of other processes than the problem.
        RecordError: if the record holds measurements of another problem: another loss, mode, number
            of parameters or dtype.

    >>> import tempfile, torch, lossgeom as lg
    >>> model = torch.nn.Linear(2, 1)
    >>> data = [(torch.ones(4, 2), torch.zeros(4, 1))]
    >>> problem = lg.Problem(model, "squared_error", data)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     record = lg.Record.create(folder)
    ...     with lg.Tracker(problem, [lg.metrics.Sharpness()], record, every=2) as tracker:
    ...         for step in range(4):
    ...             estimates = tracker(step)
    ...     [(row["step"], round(row["value"], 4)) for row in record.rows()], record.status
    ([(0, 3.0), (2, 3.0)], 'finished')
    """

    def __init__(
        self,
        problem: Problem,
        metrics: Sequence[Metric | StepMetric],
        record: Record,
        every: int | Collection[int] | Schedule = 1,
        thresholds: Mapping[str, float] | None = None,
        mirrors: Sequence[Mirror] = (),
    ) -> None:
        if not isinstance(record, Record):
            raise TypeError(
                f"expected a Record, got {type(record).__name__}; make one with Record.create(path)"
            )
        check_ranks(record, problem)
        self.metrics = checked_metrics(metrics)
        names = [metric.name for metric in metrics]
        for name, value in (thresholds or {}).items():
            if name not in names:
                raise ValueError(f"{unknown('threshold', name, names)}, which are measured here")
            _check_matrix(name, value)
        self.problem = problem
        self.record = record
        self.due = as_schedule(every)
        check_same(problem.ranks, metrics=self.metrics, every=self.due)
        copies = checked_mirrors(mirrors)
        self._describe(thresholds)
        record.mirrors.add(copies if record.ranks.rank == 0 else ())

    def __repr__(self) -> str:
        names = ", ".join(metric.name for metric in self.metrics)
        return f"Tracker([{names}], {self.problem!r}, {self.record!r})"

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        end_block(self.record, error)

    def __call__(self, step: int) -> dict[str, Estimate]:
        """Measure if this step is due; return what was measured, by metric name."""
        try:
            step = operator.index(step)
        except TypeError:
            raise TypeError(f"expected the step as an int, got {step!r}") from None
        ranks = self.problem.ranks
        due = is_due(self.due, step, ranks)
        new = unmeasured(self.record, self.metrics, step) if due else []
        return ranks.together(lambda: self._measured(step, new), level=STEP) if new else {}

    def _measured(self, step: int, new: list[Any]) -> dict[str, Estimate]:
        problem = self.problem.refreshed()
        take_live_buffers(problem)
        found = measure_into(self.record, step, new, problem)
        beside = ", ".join(self.record.for_report.thresholds)
        if beside:
            warn_of_mode(self.record, problem, beside)
        return found

    def attach(
        self,
        *optimizers: Optimizer,
        on_error: OnError = "record",
        full_batch: bool | None = None,
        first_step: int = 0,
        memory: Memory | None = None,
    ) -> Watch:
        """Measure the steps of optimisers that are due, in place of calling this once a step.

        Args:
            optimizers: those that train the model, in the order in which they step.
            on_error: whether an error of a metric becomes a row, ``"record"``, or is raised.
            full_batch: whether the optimisers get the gradient of the loss on all of the data that
                is measured on; left out, it is told from the gradients.
            first_step: the number of the next step.
            memory: what metrics keep from step to step, where it goes into checkpoints. A run then
                goes on from one, be it of step 0, and what was measured after it is superseded.

        Raises:
            TypeError: for something that is no optimiser.
            ValueError: for another ``on_error``, or no optimiser.
        """
        return Watch(
            self.problem,
            self.metrics,
            self.record,
            self.due,
            optimizers,
            on_error=on_error,
            full_batch=full_batch,
            first_step=first_step,
            memory=memory,
        )

    def _describe(self, thresholds: Mapping[str, float] | None) -> None:
        """Write down what is measured, which must be what was measured before."""
        facts, manifest = problem_facts(self.problem), self.record.manifest
        other = {key: manifest[key] for key in facts if manifest.get(key, facts[key]) != facts[key]}
        if self.record.measured and other:
            raise RecordError(
                f"{self.record.path} holds measurements of another problem, with {other}; this one "
                f"has { ({key: facts[key] for key in other}) }; choose another folder"
            )
        told, asked = self.record.for_report, dict(thresholds or {})
        formulas = {n: each.formula for n, each in asked.items() if isinstance(each, Threshold)}
        self.record.update(
            **facts,
            thresholds={**told.thresholds, **asked},
            threshold_formulas={**told.threshold_formulas, **formulas},
        )


def _check_matrix(name: str, threshold: float) -> None:
    """Refuse a threshold that no number of this metric may be compared with."""
    if not isinstance(threshold, Threshold):
        return
    if threshold.value is None:
        raise ValueError(f"expected a threshold for {name} that is known, got one {threshold}")
    if name == "sharpness" and threshold.matrix != "Hessian":
        raise ValueError(
            "expected a threshold of the Hessian's largest eigenvalue for sharpness, got one of "
            f"{threshold.matrix}; lossgeom.effective_sharpness(problem, optimizer) is compared "
            "with it"
        )
