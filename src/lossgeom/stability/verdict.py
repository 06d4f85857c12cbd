"""Where a run is relative to the edge of stability, from what was measured along it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from statistics import median

from lossgeom.stability.edge_series import EdgeSeries
from lossgeom.stability.verdict_alarms import (
    HIGH,
    LOW,
    MAXIMIZED,
    PARTS,
    alarm,
    of_few,
    on_other_steps,
    quiet,
    without_threshold,
)
from lossgeom.stability.verdict_text import ENOUGH, FEW, Gauge, Verdict, says, short

LEFT = 0.5  # of it: a run that falls so far has left, and what comes later is another stay
NEAR = 0.5  # of it: from where a rise is an approach
RISE = 1.02  # times what it was, on the way to the edge
GROWTH = 1.05  # times what it was, above it
LOSS_RISE = 2.0  # times what it was; at the edge it goes up and down by less
BLOWN_UP = 1e4  # times the first loss, or 1: a run may start at a minimum, and leave it
LARGER = 10.0  # the same, from where a loss is told
COME_BACK = 1e2  # so many times below the largest, a loss is on its way back


def edge_verdict(series: EdgeSeries) -> Verdict:
    r"""Say where a run is relative to the edge of stability.

    The rule is about r, the largest eigenvalue over the threshold of its step. Each value is
    replaced by the median of itself and its neighbours, so that no single one decides.

    - *diverged*: the loss is not finite, or 10,000 times what it was at first, or 1 where that is
      more, and has not fallen since to a hundredth of its largest.
    - *not stated*: fewer than three values; an optimiser without a known threshold, or one that
      maximises; steps on mini-batches, or maybe on such, without batch sharpness; r above 1.2 that
      does not grow.
    - *above and growing*: r is above 1.2, and it grows by 5 % to the last value, not while steps
      at their edge lower the loss; or the loss has doubled; or r is above 1, and the loss grows at
      each step to twice what it ever was before.
    - *at the edge*: r has reached .85 and stayed; from there to the last value of at least .85, the
      median and at least half of the values are in .85 to 1.2. A run has left where r falls below
      .5, or where five values below .85 follow, and more than there ever were in between, and more
      than a quarter of the stay.
    - *oscillating below the nominal edge*: r is lower, but the last steps themselves are at their
      edge: of the last five or more, the median of realised edges is .85 to 1.2, and three
      quarters are .5 to 2; or that of update curvatures or critical steps in parts of their edge.
    - *approaching*: r is at least .5 and rises by 2 %, or has just come to .85.
    - *below*: all else.

    Of mini-batches, r is batch sharpness over 2/lr, and the verdict names it. The gauges of single
    steps say when a run has arrived, not how far away it is: a step must line up with the sharpest
    direction before they see it. So no verdict "below" rests on them. Where r is not known at all,
    they make a verdict "at the edge" of plain gradient descent only, whose realised edge is at most
    r on a quadratic; with momentum, steps may be at theirs at half of the threshold.

    Source: the band, from the medians of the ratio at the edge of stability for gradient descent,
    heavy ball, Adam and AdamW in Lee and Lee (2026), and of our own study; the rule is ours.

    >>> ratios = [0.2, 0.5, 0.8, 1.05, 1.02, 0.98, 1.01, 1.03]
    >>> print(edge_verdict(EdgeSeries(range(8), ratios, full_batch=True, formula="2/lr")))
    at the edge since step 3: sharpness 1.01 to 1.03 of 2/lr
    """
    diverged = _diverged(series)
    if diverged is not None:
        return diverged
    found = _where(series)
    told = series.maximized or found.reason.endswith("the loss grows")
    return found if told else replace(found, reason=found.reason + _larger_loss(series))


def _where(series: EdgeSeries) -> Verdict:
    """The verdict on a run that has not diverged."""
    if series.maximized:
        return Verdict("not stated", MAXIMIZED)
    if series.status == "unknown":
        return without_threshold(series)
    if series.full_batch:
        ending = " (nominal)" if series.status == "nominal" else ""
        gauge = Gauge.of(series.quantity, series.formula, series.finite("ratios"), ending)
        return _of_ratios(gauge, series)
    if series.finite("batch_ratios"):
        gauge = Gauge.of("batch sharpness", "2/lr", series.finite("batch_ratios"))
        return _of_ratios(
            gauge, replace(series, realised_edges=(), update_curvatures=(), critical_steps=())
        )
    return on_other_steps(series)


def _diverged(series: EdgeSeries) -> Verdict | None:
    losses, finite = series.tried("losses"), series.finite("losses")
    bad = [step for step, _ in losses if not finite or step > finite[-1][0]]
    if bad:
        return Verdict("diverged", "the loss is not finite", bad[0])
    if not finite or series.maximized:
        return None
    first, last = finite[0][1], finite[-1][1]
    limit, largest = BLOWN_UP * max(abs(first), 1.0), max(value for _, value in finite)
    above = _above_at_the_end(Gauge.of("loss", "", finite), limit).points
    if not above or last < largest / COME_BACK:
        return None
    why = f"the loss is {last:.2g}, and was {first:.2g} at first"
    return Verdict("diverged", why, above[0][0])


def _larger_loss(series: EdgeSeries) -> str:
    """What is said beside a verdict where the loss is much larger than at first."""
    losses = [value for _, value in series.finite("losses")]
    if not losses or losses[-1] <= LARGER * max(abs(losses[0]), 1.0):
        return ""
    return f"; the loss is {losses[-1]:.2g}, and was {losses[0]:.2g} at first"


def _of_ratios(gauge: Gauge, series: EdgeSeries) -> Verdict:
    """The verdict on ratios of an eigenvalue and its threshold."""
    gauge = replace(gauge, ending=gauge.ending + _unknown_at_the_end(series))
    if len(gauge.points) < FEW:
        return of_few(gauge, series)
    gauge = gauge.smoothed()
    above = _above_and_growing(gauge, series)
    if above is not None:
        return above
    stay = _last_stay(gauge)
    was_there = len(stay.points) >= FEW and _mostly_inside(stay.values)
    if was_there and not _has_left(gauge, stay):
        return _at_the_edge(gauge, stay)
    inside = _inside_at_the_end(gauge)
    if len(inside.points) >= FEW:
        return _at_the_edge(gauge, inside)
    if gauge.values[-1] > HIGH or (inside.points and gauge.values[-1 - len(inside.points)] > HIGH):
        return _above(gauge, series)
    rises, latest = _rises(gauge), gauge.part(-1)
    if inside.points:
        return says(latest, "approaching", " and rising" if rises else "")
    return _below(gauge, series, stay if was_there else None)


def _at_the_edge(gauge: Gauge, stay: Gauge) -> Verdict:
    """From the arrival to the last value, which may be a little below."""
    start = gauge.points.index(stay.points[0])
    since, there = stay.points[0][0] if start else None, gauge.part(start)
    low, high = there.range
    wide = low < LOW or high > HIGH
    middle = f" (median {short(median(there.measured))})" if wide else ""
    return says(there, "at the edge", middle, since)


def _above_and_growing(gauge: Gauge, series: EdgeSeries) -> Verdict | None:
    if gauge.values[-1] <= HIGH:
        return _in_the_band_and_growing(gauge, series)
    run = _above_at_the_end(gauge, HIGH)
    losses = [loss for step, loss in series.finite("losses") if step >= run.points[0][0]]
    loss_grows = bool(losses) and losses[-1] > LOSS_RISE * losses[0]
    clearly = len(run.points) >= FEW or gauge.values[-1] > GROWTH * HIGH
    grows = clearly and _rises(gauge, FEW, GROWTH) and series.status == "ok"
    overshoots = gauge.measured[-1] < gauge.measured[-2] or (
        _falls(losses) and alarm(series, enough=FEW)
    )
    if not loss_grows and (overshoots or not grows):
        return None
    beside = ", and the loss grows" if loss_grows else ""
    return says(run, "above and growing", beside, _since(gauge, run))


def _in_the_band_and_growing(gauge: Gauge, series: EdgeSeries) -> Verdict | None:
    """The verdict where nothing holds a loss that grows, as on a quadratic a little above."""
    run, losses = _above_at_the_end(gauge, 1.0), series.finite("losses")
    later = [loss for step, loss in losses if run.points and step >= run.points[0][0]]
    if min(len(run.points), len(later)) < FEW or later != sorted(later):
        return None
    before = max(loss for _, loss in losses[: 1 - len(later)])
    said = says(run, "above and growing", ", and the loss grows", _since(gauge, run))
    return said if later[-1] > LOSS_RISE * before else None


def _falls(losses: Sequence[float]) -> bool:
    return len(losses) > 1 and losses[-1] < losses[0]


def _above_at_the_end(gauge: Gauge, limit: float) -> Gauge:
    """The last values, as far back as they are above a limit."""
    return gauge.part(max((i + 1 for i, r in enumerate(gauge.values) if r <= limit), default=0))


def _since(gauge: Gauge, run: Gauge) -> int | None:
    """Where the last values began, if there were others before."""
    return run.points[0][0] if len(run.points) < len(gauge.points) else None


def _above(gauge: Gauge, series: EdgeSeries) -> Verdict:
    """The verdict on a ratio that is above the band, or was a moment ago, and does not grow."""
    now, found, silent = gauge.part(-FEW), alarm(series, enough=FEW), quiet(series)
    if found is not None:
        beside = f", while {now.name} is {now.told}{now.ending}"
        return says(found, "at the edge", beside, found.points[0][0])
    if now.values[-1] < now.values[0] / GROWTH:
        return says(now, "not stated", " and falling")
    others = "are clipped, or train another loss than this"
    if silent is not None:
        beside = f"while the {silent}: steps have not lined up with it, or {others}"
        return says(now, "not stated", f", which does not grow, {beside}")
    tell = "the realised edge would tell whether steps are at their edge, or"
    return says(now, "not stated", f", which does not grow; {tell} {others}")


def _below(gauge: Gauge, series: EdgeSeries, stay: Gauge | None) -> Verdict:
    """The verdict on a ratio that is below the band, with where it was before."""
    out = max((i + 1 for i, value in enumerate(gauge.values) if value >= LOW), default=0)
    later = gauge.part(out)
    now = later.part(-max(FEW, len(gauge.points) // PARTS))
    found = alarm(series, gauge.points[out - 1][0] if out else None)
    if found is not None:
        beside = f", while the {found.name} is {found.told}"
        return says(now, "oscillating below the nominal edge", beside, found.points[0][0])
    if later.values[-1] >= NEAR and _rises(later):
        return says(gauge.part(-1), "approaching", " and rising")
    if not out:
        return _says_below(now)
    near = [i for i, value in enumerate(gauge.values) if value >= LOW]
    i = max(near, key=lambda i: gauge.measured[i])
    before = f"; it was {short(gauge.measured[i])} of it at step {gauge.points[i][0]}"
    if stay is not None:
        before = f"; at the edge from step {stay.points[0][0]} to {stay.points[-1][0]}"
    return _says_below(now, before, later.points[0][0])


def _says_below(now: Gauge, before: str = "", since: int | None = None) -> Verdict:
    """With the range of what is below, and the highest of single values that were not."""
    over = [(value, i) for i, value in enumerate(now.measured) if value >= LOW]
    low = [i for i, value in enumerate(now.measured) if value < LOW]
    if not over or not low:
        return says(now, "below", before, since)
    below = replace(
        now, points=[now.points[i] for i in low], measured=[now.measured[i] for i in low]
    )
    highest, i = max(over)
    beside = f", but for {short(highest)} at step {now.points[i][0]}"
    return says(below, "below", beside + before, since)


def _last_stay(gauge: Gauge) -> Gauge:
    """The last stay at the edge, from its first value that was measured in the band."""
    start, end, away = 0, 0, True
    for i, value in enumerate(gauge.values):
        if value < LEFT:
            away = True
        elif value >= LOW:
            if away and value <= HIGH:  # from above, a catapult has not arrived
                start, away = i, False
            end = end if away else i + 1
    inside = [i for i in range(start, end) if LOW <= gauge.measured[i] <= HIGH]
    return gauge.part(inside[0] if inside else start, end)


def _has_left(gauge: Gauge, stay: Gauge) -> bool:
    """Whether a stay is over: after a fall, or after more values below than it ever had."""
    after = [value for step, value in gauge.points if step > stay.points[-1][0]]
    dips = [len([*run]) for low, run in groupby(stay.values, lambda v: v < LOW) if low]
    longest = max(ENOUGH - 1, len(stay.points) // PARTS, *dips)
    return min(after, default=LOW) < LEFT or len(after) > longest


def _inside_at_the_end(gauge: Gauge) -> Gauge:
    """The last values, as far back as they are in the band."""
    outside = [i for i, value in enumerate(gauge.values) if not LOW <= value <= HIGH]
    return gauge.part(outside[-1] + 1 if outside else 0)


def _mostly_inside(values: Sequence[float]) -> bool:
    inside = sum(LOW <= value <= HIGH for value in values)
    return LOW <= median(values) <= HIGH and 2 * inside >= len(values)


def _rises(gauge: Gauge, size: int | None = None, by: float = RISE) -> bool:
    """Whether the last values are above those before them."""
    size = size or max(ENOUGH - 1, len(gauge.points) // PARTS)
    values = gauge.values if len(gauge.points) < 2 * size else gauge.measured
    before = values[-2 * size : -size] or values[:1]
    return median(values[-size:]) > by * median(before)


def _unknown_at_the_end(series: EdgeSeries) -> str:
    """How many values are not known after the last that is."""
    known = series.finite("ratios")
    gone = sum(step > known[-1][0] for step, _ in series.tried("ratios")) if known else 0
    return f" (the last {gone} could not be measured)" if gone else ""
