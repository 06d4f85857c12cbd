"""Rows that hold estimates, and facts about the problem that was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from lossgeom.estimate import Estimate
from lossgeom.problem import Problem
from lossgeom.recording.record import Record

FIELDS = tuple(field.name for field in fields(Estimate))


def problem_facts(problem: Problem) -> dict[str, Any]:
    """Facts that tell one problem from another, without a pass over the data."""
    return {
        "loss": problem.criterion.name,
        "mode": problem.mode,
        "parameters": problem.theta.numel(),
        "dtype": str(problem.theta.dtype),
    }


def write_estimate(
    record: Record,
    step: int,
    metric: str,
    estimate: Estimate,
    seconds: float,
    message: str | None,
    **others: Any,
) -> None:
    """Append the row of an estimate, with a message where there is no finite value.

    Args:
        record: where to.
        step: when it was measured.
        metric: what was measured.
        estimate: what was found.
        seconds: that it took.
        message: why there is no finite value.
        others: further keys of the row, or another ``status``.
    """
    row = {"step": step, "metric": metric, **asdict(estimate), "status": estimate.status}
    said = {} if message is None else {"message": message}
    record.append({**row, "seconds": round(seconds, 6), **said, **others})


def read_estimate(row: Mapping[str, Any]) -> Estimate:
    """Make an estimate from its row."""
    return Estimate(**{name: row[name] for name in FIELDS if name in row})
