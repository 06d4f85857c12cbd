"""Runs that are a few computations one after the other, instead of training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lossgeom.lab.studies._study import SeedRecords, SeedRun
from lossgeom.recording.for_report import ForReport
from lossgeom.recording.metric_figures import Trajectories
from lossgeom.recording.record import Record

Stage = Callable[[SeedRun[Any], Record], Mapping[str, float]]


def run_stages(stages: Mapping[str, Stage], run: SeedRun[Any], record: Record) -> None:
    """Compute what the record does not hold yet: a row for each stage, with its name as metric.

    A stage saves its arrays before it returns the numbers of its row, among which is ``value``.
    """
    record.describe(ForReport(figure=Trajectories()))
    done = {metric for _, metric in record.measured}
    for step, (name, stage) in enumerate(stages.items(), 1):
        if name not in done:
            record.append({"step": step, "metric": name, **stage(run, record)})
    record.finish()


def append_missing(record: Record, step: int, numbers: Mapping[str, float]) -> None:
    """Write a row for each number, but for those that an earlier process has written."""
    for metric, value in numbers.items():
        if (step, metric) not in record.measured:
            record.append({"step": step, "metric": metric, "value": value})


def over_seeds(seeds: Sequence[SeedRecords[Any]], stage: str, number: str = "value") -> list[float]:
    """A number of a stage for each seed; NaN where it is not there."""
    rows = [{row["metric"]: row for row in seed.at().rows() if "metric" in row} for seed in seeds]
    return [float(row.get(stage, {}).get(number, math.nan)) for row in rows]
