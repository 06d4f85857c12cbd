"""Numbers beside the line that predicts them."""

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


def predictions(source: Source, figures: Path) -> Section | None:
    """A panel for each name that manifests list under ``predictions``, over all runs.

    Each holds ``x`` (n,) and ``y`` (n, k), which are k numbers, and ``line_x`` and ``line_y``.
    """
    found = saved(source, "predictions")
    if not found:
        return None
    with required("matplotlib").rc_context(drawing.STYLE):
        figure = required("matplotlib.figure").Figure(
            figsize=(1.5 + 3.9 * max(2, len(found)), 3.3), layout="constrained"
        )
        axes = figure.subplots(1, len(found), squeeze=False)[0]
        nonfinite = sum(draw(axis, each) for axis, each in zip(axes, found.values(), strict=True))
        svg = drawing.save(figure, figures, "predictions")
    values = {"svg": svg, "nonfinite": nonfinite}
    return Section("Limits and what predicts them", "predictions.html", values)


def draw(axis: Any, each: Saved) -> int:
    """One panel, of all runs; returns how many numbers are not finite, which are not drawn."""
    x, facts, first = each.arrays[0]["x"], each.facts, each.arrays[0]
    every = np.concatenate([arrays["y"] for arrays in each.arrays], axis=1)
    y = np.ma.masked_invalid(every)
    middle: Any = np.ma.median(y, axis=1)  # type: ignore[no-untyped-call]
    reach = [middle - y.min(axis=1), y.max(axis=1) - middle]
    dark, light = drawing.colours(3)[:2]
    axis.plot(first["line_x"], first["line_y"], "--", color=light, zorder=1,
              label=words(facts["line_label"]))  # fmt: skip
    axis.errorbar(x, middle.filled(np.nan), np.ma.filled(reach, np.nan), fmt="o", color=dark,
                  markersize=5, capsize=3, linewidth=1.2, label="measured")  # fmt: skip
    if facts["log_x"]:
        axis.set_xscale("log")
        axis.set_xticks(x, [f"{value:g}" for value in x])
        axis.minorticks_off()
    axis.margins(y=0.15)
    axis.set_title(words(facts["title"]))
    axis.set_xlabel(words(facts["x_label"]))
    axis.set_ylabel(words(facts["y_label"]))
    axis.legend(loc="best")
    return int((~np.isfinite(every)).sum())
