"""What gauges of single steps say, and what is said of runs that no threshold tells of."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from statistics import median

from lossgeom.stability.edge_series import PLAIN_SGD, EdgeSeries, Points
from lossgeom.stability.verdict_text import ENOUGH, FEW, Gauge, Verdict, says, short

LOW, HIGH = 0.85, 1.2  # of the threshold: the band of runs at the edge
WIDE, MOST = (0.5, 2.0), 0.75  # where that share of single steps are, of a run at the edge
PARTS = 4  # what is said of now rests on the last of so many
ALIKE = 0.99  # a cosine below which gradients are said to be others
MAXIMIZED = (
    "the loss is maximised, and what is stated here is of losses that are lowered; train and "
    "measure minus the loss without maximize"
)
CAUSES = (
    "Dropout that draws anew, label smoothing or weights that are not given, a model that trains "
    "in eval mode, which mode='eval' measures, and data to measure on that are a part of "
    "those trained on do this, too; full_batch=True takes steps for those of the loss measured"
)


def alarm(series: EdgeSeries, after: int | None = None, enough: int = ENOUGH) -> Gauge | None:
    """The gauge of single steps by which the last of them are at their edge, if there is one.

    Three are enough where the threshold is passed already.
    """
    for name, edge, tried in _gauges(series):
        points = [point for point in tried if after is None or point[0] > after]
        near = [WIDE[0] <= value <= WIDE[1] for _, value in points]  # false of NaN
        size = max(enough, len(points) // PARTS)
        recent = [value if math.isfinite(value) else math.inf for _, value in points[-size:]]
        if len(recent) < enough or not LOW <= median(recent) <= HIGH:
            continue
        if sum(near[-size:]) >= MOST * len(recent):
            start = near.index(True, len(points) - len(recent))
            while start and near[start - 1]:
                start -= 1
            return Gauge.of(name, edge, _finite(points[start:]))
    return None


def _gauges(series: EdgeSeries) -> Iterator[tuple[str, str, Points]]:
    """Each gauge of single steps, in parts of its edge."""
    yield "realised edge", "", series.tried("realised_edges")
    halves = [(step, rho / 2) for step, rho in series.tried("update_curvatures")]
    yield "update curvature", "2", halves
    parts = [(step, 1 / least) for step, least in series.tried("critical_steps") if least]
    yield "critical sharpness", "2/lr", parts


def _finite(points: Points) -> Points:
    return [point for point in points if math.isfinite(point[1])]


def _not_stated(why: str, found: Gauge | None) -> Verdict:
    """No verdict, with what the gauges of single steps say all the same."""
    if found is None:
        return Verdict("not stated", why)
    return replace(
        says(found, "not stated"),
        reason=f"{why}; since step {found.points[0][0]} its steps lower the loss by little of what "
        f"the slope promises, or raise it: {found}",
    )


def of_few(gauge: Gauge, series: EdgeSeries) -> Verdict:
    """The verdict where the ratio is known at too few steps."""
    found = alarm(series)
    if found is not None and series.formula == PLAIN_SGD:  # whose zeta is no more than the ratio
        return says(found, "at the edge", since=found.points[0][0])
    if not gauge.points and series.still:
        return Verdict("not stated", "the learning rate is 0, so that nothing moves")
    known = ("no value", "1 value", "2 values")[len(gauge.points)]
    beside = [
        f"{steps} {of}"
        for steps, of in (
            (series.early, "where its threshold is nominal yet"),
            (series.still, "with a learning rate of 0"),
            (len(series.tried("ratios")) - len(series.finite("ratios")), "not known"),
        )
        if steps
    ]
    others = f", beside {', '.join(beside)}" if beside else ""
    why = f"{known} of {gauge.name} over {gauge.edge}{gauge.ending}{others}; it takes {FEW}"
    if series.skipped:
        why += f", and {series.skipped} due steps were left out for the budget; budget=None has all"
    return _not_stated(why, found)


def without_threshold(series: EdgeSeries) -> Verdict:
    """No verdict on an optimiser whose threshold is not known, with what else may answer."""
    why = f"no threshold is known for {series.optimizer}"
    if series.full_batch is False:
        return Verdict("not stated", f"{why}, and {_other_steps(series)}; {_remedies(series)}")
    found = alarm(series) if series.full_batch else None
    if found is not None:
        return _not_stated(why, found)
    silent = quiet(series) if series.full_batch else None
    if silent is not None:
        return replace(says(silent, "not stated"), reason=f"{why}; {_of_silence(silent)}")
    tell = "realised_edge, update_curvature and critical_step answer for any, of full-batch steps"
    return Verdict("not stated", f"{why}; {tell}")


def quiet(series: EdgeSeries) -> Gauge | None:
    """The last values of a gauge of single steps, where none of them is near its edge."""
    for name, edge, tried in _gauges(series):
        known = _finite(tried[-max(ENOUGH, len(tried) // PARTS) :])
        if len(known) >= ENOUGH:
            return Gauge.of(name, edge, known)
    return None


def _of_silence(gauge: Gauge) -> str:
    """What the gauge says; that it is silent is no distance."""
    largest = max(gauge.values)
    if largest >= WIDE[0]:
        return f"{gauge} in the last steps"
    edge = f" of {gauge.edge}" if gauge.edge else ""
    return f"{gauge.name} at most {short(largest)}{edge} in the last steps: no sign of an edge"


def on_other_steps(series: EdgeSeries) -> Verdict:
    """No verdict on steps that are, or may be, on other data or another loss than is measured."""
    if series.full_batch is None:
        why = "it is not known whether steps are on mini-batches, which have an edge of their own"
        return Verdict("not stated", f"{why}; full_batch=True says that they are not")
    why = f"{_other_steps(series)}, and have another edge"
    return Verdict("not stated", f"{why}; {_remedies(series)}")


def _other_steps(series: EdgeSeries) -> str:
    cosine = series.gradient_cosine
    low = f" (gradient cosine {short(cosine)})" if cosine < ALIKE else ""  # false of NaN
    return f"steps are on mini-batches, or not along the gradient of the loss that is measured{low}"


def _remedies(series: EdgeSeries) -> str:
    """What would tell instead."""
    if series.status != "unknown" and series.formula == PLAIN_SGD:
        gauge = "batch sharpness would tell, of SGD without momentum"
        return f"{gauge}: metrics=[lossgeom.metrics.BatchSharpness(batch_size)]. {CAUSES}"
    full = "effective_sharpness at a checkpoint tells of full-batch steps, and "
    known = "" if series.status == "unknown" else full
    return (
        f"no gauge is known to tell for {series.optimizer} on mini-batches: {known}"
        f"update_curvature and critical_step are alarms. {CAUSES}"
    )
