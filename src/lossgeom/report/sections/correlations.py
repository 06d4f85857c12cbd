"""Which of two quantities goes together with a third one, in a study and over several."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from lossgeom.plot.style import colours, literal, panels, words
from lossgeom.recording.correlations import NEEDED, RESAMPLES, Correlation, Runs
from lossgeom.recording.ended import ended
from lossgeom.recording.metric_figures import Comparison
from lossgeom.report._section import Section
from lossgeom.report._source import Source
from lossgeom.report.figures import save

MARKERS = "osD^vPX<>"
WIDE = 100.0  # the largest value over the smallest, from which an axis is logarithmic


def correlations(source: Source, figures: Path) -> Section | None:  # noqa: ARG001
    """Both correlations over the runs of a study, and their difference."""
    compared = _compared(source)
    runs = compared and _runs([source], compared)
    return _section(compared, runs, []) if compared and runs else None


def pooled(sources: Sequence[Source], figures: Path) -> list[Section]:
    """The same over the runs of all studies that compare the same, and of each of them."""
    found = []
    for number, compared in enumerate(dict.fromkeys(filter(None, map(_compared, sources))), 1):
        of = [source for source in sources if _compared(source) == compared]
        alone = [(words(s.folder.resolve().name), _runs([s], compared)) for s in of]
        each = [(study, runs) for study, runs in alone if runs is not None]
        runs = _runs(of, compared)
        if len(each) > 1 and runs is not None:
            svg = save(_figure(compared, each), figures, f"together{number}")
            found.append(_section(compared, runs, each, svg=svg))
    return found


def _compared(source: Source) -> Comparison | None:
    return None if source.told.scatter is None else source.told.scatter.compared


def _runs(sources: Sequence[Source], compared: Comparison) -> Runs | None:
    """The runs that count and have all that is compared; once, where two studies have the same."""
    runs = ended(
        *(
            [r for r in source.records.values() if r.is_over and r.for_report.left_out is None]
            for source in sources
        )
    )
    names = (*compared.metrics, compared.given.metric)
    if not set(names) <= runs.columns.keys():
        return None
    runs = runs.finite(*names)
    seen = list(zip(runs.seeds, *(runs.columns[name] for name in names), strict=True))
    runs = runs.where([seen.index(one) == place for place, one in enumerate(seen)])
    return runs if runs.seeds else None


def _section(
    compared: Comparison, runs: Runs, each: Sequence[tuple[str, Runs]], svg: str | None = None
) -> Section:
    """The correlations of all runs, after those of each study, and what follows."""
    rows = [_row(f"{study}: rank correlation", compared, of) for study, of in each]
    for name, ranks in (("rank correlation", True), ("correlation (Pearson)", False)):
        for more, given in (("", None), (f", given the {compared.given.label}", compared.given)):
            said = f"{'all: ' if each else ''}{name}{more}"
            rows.append(_row(said, compared, runs, given=given and given.metric, ranks=ranks))
    first, second, outcome = compared.metrics
    values = {
        "compared": compared,
        "rows": rows,
        "runs": len(runs.seeds),
        "resamples": RESAMPLES,
        "svg": svg,
        "verdict": _verdict(compared, runs.difference(second, first, outcome)),
    }
    title = f"What goes together with the {compared.outcome.label}"
    return Section(title, "correlations.html", values)


def _row(name: str, compared: Comparison, runs: Runs, **settings: Any) -> dict[str, Any]:
    first, second, outcome = compared.metrics
    return {
        "name": name,
        "runs": len(runs.seeds),
        "first": runs.correlation(first, outcome, **settings),
        "second": runs.correlation(second, outcome, **settings),
        "difference": runs.difference(second, first, outcome, **settings),
    }


def _verdict(compared: Comparison, difference: Correlation) -> str:
    """Say in a sentence which rank correlation is larger, if that is known."""
    low, high = difference.interval()
    first, second, outcome = (
        f"the {of.label}" for of in (compared.first, compared.second, compared.outcome)
    )
    if math.isnan(low):
        return (
            f"Whether {second} or {first} goes together with {outcome} more closely cannot be "
            f"said: {NEEDED}."
        )
    if low <= 0 <= high:
        return (
            f"Neither {second} nor {first} is shown to go together with {outcome} more closely: "
            f"the difference of their rank correlations, {difference}, may be 0."
        )
    ahead, behind = (second, first) if low > 0 else (first, second)
    return (
        f"T{ahead[1:]} goes together with {outcome} more closely than {behind}: the "
        f"difference of their rank correlations, {difference}, is not 0."
    )


def _figure(compared: Comparison, each: Sequence[tuple[str, Runs]]) -> Any:
    """The outcome over either quantity, with a colour and a marker for each study."""
    figure, axes = panels(7.8, 4.6, columns=2, sharey=True)
    for axis, x in zip(axes[0], (compared.first, compared.second), strict=True):
        looks = zip(each, colours(len(each)), cycle(MARKERS))
        for (study, runs), colour, marker in looks:
            values = runs.columns[x.metric], runs.columns[compared.outcome.metric]
            axis.plot(*values, marker, color=colour, markersize=4, alpha=0.7, label=study)
        every = [value for _, runs in each for value in runs.columns[x.metric]]
        axis.set_xscale("log" if 0 < min(every) * WIDE < max(every) else "linear")
        axis.set_xlabel(literal(x.label))
    axes[0, 0].set_ylabel(literal(compared.outcome.label))
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4)
    return figure
