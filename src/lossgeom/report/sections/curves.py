"""Single runs over their steps, with the level that they are about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lossgeom.extras import required
from lossgeom.report import figures as drawing
from lossgeom.report._section import Section
from lossgeom.report._source import Source
from lossgeom.report.figures import words
from lossgeom.report.sections._saved import Saved, saved

ABOVE = 1.6  # times the level, up to which a panel reaches


def curves(source: Source, figures: Path) -> Section | None:
    """A panel for each name that manifests list under ``curves``, of the first run.

    Each holds ``x`` (n,) and ``y`` (n, k), NaN after the end of a curve, and the fact ``line``.
    """
    found = saved(source, "curves")
    if not found:
        return None
    with required("matplotlib").rc_context(drawing.STYLE):
        figure = required("matplotlib.figure").Figure(
            figsize=(1.5 + 3.0 * max(2, len(found)), 3.2), layout="constrained"
        )
        axes = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
        for axis, each in zip(axes, found.values(), strict=True):
            draw(axis, each)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center")
        axes[0].set_ylabel(words(next(iter(found.values())).facts["y_label"]))
        svg = drawing.save(figure, figures, "curves")
    return Section("Single runs", "curves.html", {"svg": svg})


def draw(axis: Any, each: Saved) -> None:
    """One panel."""
    arrays, facts = each.arrays[0], each.facts
    x, y, level = arrays["x"], arrays["y"], facts["line"]
    for curve, colour in zip(y.T, drawing.colours(y.shape[1]), strict=True):
        axis.plot(x, curve, color=colour, linewidth=1)
        ended = np.flatnonzero(~np.isfinite(curve))
        if len(ended):
            axis.plot(x[ended[0]], 0.98, "x", color=colour, markersize=5, clip_on=False,
                      transform=axis.get_xaxis_transform())  # fmt: skip
    axis.axhline(level, color="black", linestyle=(0, (2, 2)), linewidth=1,
                 label=words(facts["line_label"]))  # fmt: skip
    axis.set_ylim(0, ABOVE * level)
    axis.set_title(words(facts["title"]))
    axis.set_xlabel(words(facts["x_label"]))
