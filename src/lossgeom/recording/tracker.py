"""Metrics on a schedule, written to a record."""

from __future__ import annotations

import math
import operator
import time
import warnings
from collections.abc import Collection, Mapping, Sequence

from lossgeom.estimate import Estimate
from lossgeom.metrics import Metric
from lossgeom.problem import NonFiniteError, Problem
from lossgeom.recording.estimates import problem_facts, write_estimate
from lossgeom.recording.for_report import ForReport
from lossgeom.recording.record import Record
from lossgeom.recording.record_format import RecordError
from lossgeom.recording.schedule import Schedule, as_schedule
from lossgeom.stability import Threshold
from lossgeom.wording import unknown


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

    Raises:
        TypeError: if record, metrics or a step are of another type.
        ValueError: if two metrics have one name, or a threshold is of another one, or of another
            matrix, or unknown.
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
        metrics: Sequence[Metric],
        record: Record,
        every: int | Collection[int] | Schedule = 1,
        thresholds: Mapping[str, float] | None = None,
    ) -> None:
        if not isinstance(record, Record):
            raise TypeError(
                f"expected a Record, got {type(record).__name__}; make one with Record.create(path)"
            )
        for metric in metrics:
            if isinstance(metric, type) or not isinstance(metric, Metric):
                raise TypeError(f"expected metrics such as metrics.Loss(), got {metric!r}")
        names = [metric.name for metric in metrics]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"expected metrics of different names, got {names}")
        for name, value in (thresholds or {}).items():
            if name not in names:
                raise ValueError(f"{unknown('threshold', name, names)}, which are measured here")
            _check_matrix(name, value)
        self.problem = problem
        self.metrics = tuple(metrics)
        self.record = record
        self.due = as_schedule(every)
        self._warned = False
        self._describe(thresholds)

    def __repr__(self) -> str:
        names = ", ".join(metric.name for metric in self.metrics)
        return f"Tracker([{names}], {self.problem!r}, {self.record!r})"

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is not None and issubclass(error, Exception) and not self.record.is_over:
            self.record.finish("failed")
        self.record.__exit__(error, error, None)

    def __call__(self, step: int) -> dict[str, Estimate]:
        """Measure if this step is due; return what was measured, by metric name."""
        try:
            step = operator.index(step)
        except TypeError:
            raise TypeError(f"expected the step as an int, got {step!r}") from None
        if not self.due(step):
            return {}
        new = [m for m in self.metrics if (step, m.name) not in self.record.measured]
        problem = self.problem.refreshed() if new else self.problem
        estimates = {metric.name: self._measure(metric, problem, step) for metric in new}
        self._check_mode(problem)
        if new and self.record.for_report.notes != problem.notes:
            self.record.update(notes=problem.notes)
        return estimates

    def _check_mode(self, problem: Problem) -> None:
        """Warn if thresholds stand beside numbers of another mode than that of training."""
        thresholds = self.record.for_report.thresholds
        if not thresholds or problem.unset_mode is None or self._warned:
            return
        self._warned = True
        self.record.describe(ForReport(thresholds_caution=problem.unset_mode))
        warnings.warn(
            f"thresholds of training beside {', '.join(thresholds)}, {problem.unset_mode}; say "
            "which is meant with Problem(..., mode='train') or mode='eval'",
            stacklevel=3,
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

    def _measure(self, metric: Metric, problem: Problem, step: int) -> Estimate:
        started = time.perf_counter()
        try:
            estimate, message = metric(problem), None
        except NonFiniteError as error:
            estimate, message = Estimate(math.nan, converged=False), str(error)
        seconds = time.perf_counter() - started
        write_estimate(self.record, step, metric.name, estimate, seconds, message)
        return estimate


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
