"""Measuring what a record does not hold yet of a step, and the end of a run that is measured."""

from __future__ import annotations

import math
import re
import time
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain
from typing import Any, Literal

from lossgeom.distributed import ALONE, Ranks
from lossgeom.estimate import Estimate
from lossgeom.metrics import Metric, Step, StepMetric
from lossgeom.problem import NonFiniteError, Problem
from lossgeom.recording.edge_lines import edge_of
from lossgeom.recording.estimates import write_estimate
from lossgeom.recording.for_report import ForReport
from lossgeom.recording.record import Record
from lossgeom.recording.record_format import RecordError
from lossgeom.recording.watched import as_watched
from lossgeom.stability import UndefinedError

FAILED = "failed"  # the status of a row of a metric that raised an error
UNDEFINED = "undefined"  # and of one that there is not at this step
ROWS_SAY_SO = "rows with the status 'failed' say so, this time and later"
OWN = "lossgeom."  # how the modules of the library's own metrics and schedules begin
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")  # of an object, another one in each process
NOTHING = Estimate(math.nan, converged=False)
STEP, METRIC = 0, 1  # levels at which the processes that share the data wait for each other
OnError = Literal["record", "raise"]
ON_ERROR: tuple[OnError, ...] = ("record", "raise")


class Failures:
    """Errors beside a training that goes on: counted, with a warning of the first; or raised.

    Of what all processes see alike, the first of them warns.

    Attributes:
        count: how many there were.
        written: how many of them are rows.
    """

    def __init__(self, on_error: OnError, ranks: Ranks = ALONE) -> None:
        if on_error not in ON_ERROR:
            raise ValueError(f"expected on_error to be 'record' or 'raise', got {on_error!r}")
        self.count = self.written = 0
        self._raises = on_error == "raise"
        self._first = ranks.rank == 0
        self._warned: set[str] = set()

    def add(self, name: str, step: int, error: Exception, then: str = ROWS_SAY_SO) -> None:
        """Count an error in what has this name, or raise it; say what is done in its place."""
        if self._raises:
            raise error
        self.count += 1
        self.written += then == ROWS_SAY_SO
        self.warn(
            "error",
            f"{name} could not be measured at step {step} ({described(error)}); training goes on, "
            f"and {then}; on_error='raise' raises the error",
        )

    def warn(self, about: str, text: str) -> None:
        """Warn once about something."""
        if about not in self._warned and (self._first or about == "error"):
            self._warned.add(about)
            warnings.warn(text, stacklevel=3)


def described(error: Exception) -> str:
    """An error in one line.

    >>> described(ZeroDivisionError("of one's own"))
    "ZeroDivisionError: of one's own"
    """
    return f"{type(error).__name__}: {error}".strip()


def checked_metrics(metrics: Sequence[Metric | StepMetric]) -> tuple[Metric | StepMetric, ...]:
    """Metrics of different names, or an error for anything else.

    Raises:
        TypeError: for something that is no metric.
        ValueError: if there are none, or two have one name.
    """
    if not isinstance(metrics, Iterable):
        raise TypeError(f"expected a list of metrics, got {metrics!r}; put it into []")
    for metric in metrics:
        if isinstance(metric, type) or not isinstance(metric, (Metric, StepMetric)):
            made = "; add () to make one" if isinstance(metric, type) else ""
            raise TypeError(f"expected metrics such as metrics.Loss(), got {metric!r}{made}")
    names = [metric.name for metric in metrics]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"expected metrics of different names, got {names}")
    return tuple(metrics)


def check_ranks(record: Record, problem: Problem) -> None:
    """Raise a ValueError for a record of other processes than the problem."""
    if record.ranks.size != problem.ranks.size:
        raise ValueError(
            "expected the record and the problem to be of the same processes, got "
            f"{record.ranks.size} and {problem.ranks.size}; make both with ranks=lg.ranks(), the "
            "record with Record.create(path, ranks=lg.ranks()) on each of them"
        )


def check_same(ranks: Ranks, **settings: object) -> None:
    """Raise on all processes that measure together if they are to do different things."""
    alike = {f"{name}=": _told(setting) for name, setting in settings.items()}
    ranks.together(lambda: None, lambda _: alike)


def _told(setting: object) -> object:
    """What other processes see of a setting: of what is not the library's own, its name."""
    if isinstance(setting, tuple):
        return ", ".join(str(_told(each)) for each in setting)
    if isinstance(setting, (str, int, type(None))) or type(setting).__module__.startswith(OWN):
        return ADDRESS.sub("", repr(setting))
    return getattr(setting, "name", type(setting).__name__)


def unmeasured(record: Record, metrics: Sequence[Metric | StepMetric], step: int) -> list[Any]:
    """The metrics of which the record holds no row at a step."""
    return [metric for metric in metrics if (step, metric.name) not in record.measured]


def measure_into(
    record: Record,
    step: int,
    metrics: Sequence[Metric | StepMetric],
    at: Problem | Step,
    failures: Failures | None = None,
) -> dict[str, Estimate]:
    """Measure at a step, and append a row for each metric.

    Args:
        record: where to.
        step: its number.
        metrics: what to measure.
        at: where to measure it; metrics of steps take the step of the optimisers from there.
        failures: hears of errors of metrics, whose rows say so; without it, they are raised.

    Raises:
        TypeError: for a metric of steps where there is none.
    """
    found = {}
    problem = at.before if isinstance(at, Step) else at
    for metric in metrics:
        started = time.perf_counter()
        status: dict[str, str] = {}
        try:
            estimate, message = _measured(problem.ranks, metric, at, step), None
        except NonFiniteError as error:
            estimate, message = NOTHING, str(error)
        except UndefinedError as error:
            estimate, message, status = NOTHING, str(error), {"status": UNDEFINED}
        except Exception as error:
            if failures is None:
                raise
            estimate, message, status = NOTHING, described(error), {"status": FAILED}
            failures.add(metric.name, step, error)
        if status.get("status") != FAILED:
            found[metric.name] = estimate
        seconds = time.perf_counter() - started
        others = {**(_of_optimizers(metric.name, at) if isinstance(at, Step) else {}), **status}
        write_estimate(record, step, metric.name, estimate, seconds, message, **others)
    if metrics:
        note(record, *notes_of_all(problem))
    return found


def write_failed(
    record: Record, step: int, metrics: Sequence[Metric | StepMetric], error: Exception
) -> None:
    """Append rows that say why a step has no more of some metrics, where they can be written."""
    with suppress(RecordError, OSError):
        for metric in unmeasured(record, metrics, step):
            message = described(error)
            write_estimate(record, step, metric.name, NOTHING, 0.0, message, status=FAILED)


def _measured(ranks: Ranks, metric: Metric | StepMetric, at: Problem | Step, step: int) -> Estimate:
    """Measure on all processes; the estimate is that of the first, which others may round."""
    alike = {"the metric": metric.name, "the step": step}
    found = ranks.together(partial(_estimate, metric, at), lambda _: alike, level=METRIC)
    return ranks.from_first(found)


def _estimate(metric: Metric | StepMetric, at: Problem | Step) -> Estimate:
    if isinstance(at, Step) and isinstance(metric, StepMetric):
        return metric.of_step(at)
    if isinstance(metric, Metric):
        return metric(at.before if isinstance(at, Step) else at)
    raise TypeError(
        f"{metric.name} measures a step of an optimiser, and none was taken here; let "
        "tracker.attach(optimizer) or lossgeom.watch(...) measure it"
    )


def _of_optimizers(metric: str, taken: Step) -> dict[str, Any]:
    """The learning rate of a step and the edge of a metric, ``None`` where there is no number.

    And whether the threshold is nominal, if it is.
    """
    state = taken.state
    edge = edge_of(metric, as_watched(state))
    row = {"lr": state.lr, "threshold": float(state.threshold)}
    threshold = math.nan if edge is None else edge.of(row)
    nominal = {"nominal": True} if state.threshold.status == "nominal" else {}
    return {**row, "threshold": None if math.isnan(threshold) else threshold, **nominal}


def notes_of_all(problem: Problem) -> list[str]:
    """The notes of a problem that it has on any of the processes."""
    return list(dict.fromkeys(chain.from_iterable(problem.ranks.gathered(problem.notes))))


def note(record: Record, *notes: str) -> None:
    """Write how measurements differ from how the model runs, if it is not written there yet."""
    told = record.for_report.notes
    new = [each for each in notes if each not in told]
    if new:
        record.update(notes=[*told, *new])


def end_block(record: Record, error: type[BaseException] | None) -> None:
    """Finish the record of a ``with`` block, as ``"failed"`` where an error ended it.

    One that Ctrl-C or a kill ends stays open to be gone on with.
    """
    try:
        if error is not None and issubclass(error, Exception) and not record.is_over:
            record.finish("failed")
        record.__exit__(error, None, None)
    finally:
        record.close()  # also where the disk is full


def warn_of_mode(record: Record, problem: Problem, beside: str) -> None:
    """Warn once if thresholds of training stand beside numbers of another mode.

    Args:
        record: that is told, for its page.
        problem: that was measured.
        beside: what the thresholds are drawn beside.
    """
    if problem.unset_mode in (None, record.for_report.thresholds_caution):
        return
    record.describe(ForReport(thresholds_caution=problem.unset_mode))
    warnings.warn(
        f"thresholds of training beside {beside}, {problem.unset_mode}; say which is meant with "
        "Problem(..., mode='train') or mode='eval'",
        stacklevel=4,
    )
