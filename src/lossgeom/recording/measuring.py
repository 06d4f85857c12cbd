"""Measuring what a record does not hold yet of a step, and the end of a run that is measured."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from lossgeom.estimate import Estimate
from lossgeom.metrics import Metric, Step, StepMetric
from lossgeom.problem import NonFiniteError, Problem
from lossgeom.recording.estimates import write_estimate
from lossgeom.recording.for_report import ForReport
from lossgeom.recording.heard import described
from lossgeom.recording.record import Record
from lossgeom.stability import UndefinedError

FAILED = "failed"  # the status of a row of a metric that raised an error
UNDEFINED = "undefined"  # and of one that there is not at this step
NOTHING = Estimate(math.nan, converged=False)
Failed = Callable[[str, Exception], None]  # is told the name of a metric, and what it raised


def checked_metrics(metrics: Sequence[Metric | StepMetric]) -> tuple[Metric | StepMetric, ...]:
    """Metrics of different names, or an error for anything else.

    Raises:
        TypeError: for something that is no metric.
        ValueError: if there are none, or two have one name.
    """
    for metric in metrics:
        if isinstance(metric, type) or not isinstance(metric, (Metric, StepMetric)):
            raise TypeError(f"expected metrics such as metrics.Loss(), got {metric!r}")
    names = [metric.name for metric in metrics]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"expected metrics of different names, got {names}")
    return tuple(metrics)


def unmeasured(record: Record, metrics: Sequence[Metric | StepMetric], step: int) -> list[Any]:
    """The metrics of which the record holds no row at a step."""
    return [metric for metric in metrics if (step, metric.name) not in record.measured]


def measure_into(
    record: Record,
    step: int,
    metrics: Sequence[Metric | StepMetric],
    problem: Problem,
    taken: Step | Exception | None = None,
    failed: Failed | None = None,
) -> dict[str, Estimate]:
    """Measure at a step, and append a row for each metric.

    Args:
        record: where to.
        step: its number.
        metrics: what to measure.
        problem: where to measure it.
        taken: the step of the optimisers from there, for metrics of steps, or why there is none.
        failed: is told of an error of a metric, whose row says so; without it, errors are raised.

    Raises:
        TypeError: for a metric of steps where there is none.
    """
    found = {}
    others = {} if taken is None else of_optimizers(taken)
    for metric in metrics:
        started = time.perf_counter()
        status: dict[str, str] = {}
        try:
            estimate, message = _measured(metric, problem, taken), None
        except NonFiniteError as error:
            estimate, message = NOTHING, str(error)
        except UndefinedError as error:
            estimate, message, status = NOTHING, str(error), {"status": UNDEFINED}
        except Exception as error:
            if failed is None:
                raise
            estimate, message, status = NOTHING, described(error), {"status": FAILED}
            failed(metric.name, error)
        if status.get("status") != FAILED:
            found[metric.name] = estimate
        seconds = time.perf_counter() - started
        write_estimate(record, step, metric.name, estimate, seconds, message, **others, **status)
    return found


def _measured(
    metric: Metric | StepMetric, problem: Problem, taken: Step | Exception | None
) -> Estimate:
    if isinstance(taken, Step) and isinstance(metric, StepMetric):
        return metric.of_step(taken)
    if isinstance(metric, Metric):
        return metric(problem)
    if isinstance(taken, Exception):
        raise taken
    raise TypeError(
        f"{metric.name} measures a step of an optimiser, and none was taken here; let "
        "tracker.attach(optimizer) or lossgeom.watch(...) measure it"
    )


def of_optimizers(taken: Step | Exception) -> dict[str, float | None]:
    """The learning rate and threshold of a step, each ``None`` where there is no one number."""
    if isinstance(taken, Exception):
        return {"lr": None, "threshold": None}
    threshold = float(taken.state.threshold)
    return {"lr": taken.state.lr, "threshold": None if math.isnan(threshold) else threshold}


def end_block(record: Record, error: type[BaseException] | None) -> None:
    """Finish the record of a ``with`` block, as ``"failed"`` where an error ended it.

    One that Ctrl-C or a kill ends stays open to be gone on with.
    """
    if error is not None and issubclass(error, Exception) and not record.is_over:
        record.finish("failed")
    record.__exit__(error, None, None)


def warn_of_mode(record: Record, problem: Problem, beside: str) -> bool:
    """Warn if thresholds of training stand beside numbers of another mode; return whether.

    Args:
        record: that is told, for its page.
        problem: that was measured.
        beside: what the thresholds are drawn beside.
    """
    if problem.unset_mode is None:
        return False
    record.describe(ForReport(thresholds_caution=problem.unset_mode))
    warnings.warn(
        f"thresholds of training beside {beside}, {problem.unset_mode}; say which is meant with "
        "Problem(..., mode='train') or mode='eval'",
        stacklevel=4,
    )
    return True
