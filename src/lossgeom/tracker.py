"""Metrics on a schedule, written to a record."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict

from lossgeom.estimate import Estimate
from lossgeom.metrics import Metric
from lossgeom.problem import NonFiniteError, Problem
from lossgeom.record import Record
from lossgeom.schedule import Schedule, as_schedule


class Tracker:
    """Measures a model while it trains.

    Call it once a step. When the schedule says so, it takes the parameters that the model has
    now, measures every metric, and appends one row per metric to the record. What the record holds
    already, because a run that was stopped is gone through again, is not measured again. A NaN
    or infinite loss is written down as such.

    Args:
        problem: the model that trains, with the loss and data to measure it on.
        metrics: what to measure, see :mod:`lossgeom.metrics`; no two of one name.
        record: where to.
        every: when: a number of steps, a list of steps, or a schedule such as
            :class:`lossgeom.schedule.Logarithmic`. For another rhythm, use a second tracker on the
            same record.

    >>> import tempfile, torch, lossgeom as lg
    >>> model = torch.nn.Linear(2, 1)
    >>> data = [(torch.ones(4, 2), torch.zeros(4, 1))]
    >>> problem = lg.Problem(model, "squared_error", data)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     record = lg.Record.create(folder)
    ...     tracker = lg.Tracker(problem, [lg.metrics.Sharpness()], record, every=2)
    ...     for step in range(4):
    ...         estimates = tracker(step)
    ...     [(row["step"], round(row["value"], 4)) for row in record.rows()]
    [(0, 3.0), (2, 3.0)]
    """

    def __init__(
        self,
        problem: Problem,
        metrics: Sequence[Metric],
        record: Record,
        every: int | Collection[int] | Schedule = 1,
    ) -> None:
        names = [metric.name for metric in metrics]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"expected metrics of different names, got {names}")
        self.problem = problem
        self.metrics = tuple(metrics)
        self.record = record
        self.due = as_schedule(every)
        record.update(
            loss=problem.criterion.name,
            mode=problem.mode,
            parameters=problem.theta.numel(),
            dtype=str(problem.theta.dtype),
        )

    def __call__(self, step: int) -> dict[str, Estimate]:
        """Measure if this step is due; return what was measured, by metric name."""
        if not self.due(step):
            return {}
        new = [m for m in self.metrics if (step, m.name) not in self.record.measured]
        problem = self.problem.refreshed() if new else self.problem
        return {metric.name: self._measure(metric, problem, step) for metric in new}

    def _measure(self, metric: Metric, problem: Problem, step: int) -> Estimate:
        started = time.perf_counter()
        try:
            estimate, message = metric(problem), {}
        except NonFiniteError as error:
            estimate, message = Estimate(math.nan, converged=False), {"message": str(error)}
        seconds = time.perf_counter() - started
        row = {"step": step, "metric": metric.name, **asdict(estimate), "status": estimate.status}
        self.record.append({**row, "seconds": round(seconds, 6), **message})
        return estimate
