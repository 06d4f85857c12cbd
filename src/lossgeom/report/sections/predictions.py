"""Numbers beside the line that predicts them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lossgeom.plot.style import colours, label, panels, words
from lossgeom.recording.for_report import Prediction
from lossgeom.report._section import Section
from lossgeom.report._source import Source
from lossgeom.report.figures import save
from lossgeom.report.sections._saved import Saved, saved

COLUMNS, WIDEST = 3, 11.8  # inches, which a page holds


def predictions(source: Source, figures: Path) -> Section | None:
    """A panel for each drawing of :class:`Prediction`, over all runs."""
    found = saved(source, Prediction)
    if not found:
        return None
    columns = min(COLUMNS, len(found))
    rows = -(-len(found) // columns)
    width = min(1.5 + 3.9 * max(2, columns), WIDEST)
    figure, axes = panels(width, 3.3 * rows, rows=rows, columns=columns)
    nonfinite = sum(draw(axis, each) for axis, each in zip(axes.flat, found, strict=False))
    for axis in axes.flat[len(found) :]:
        axis.remove()
    values = {"svg": save(figure, figures, "predictions"), "nonfinite": nonfinite}
    return Section("Measured, and what is compared with it", "predictions.html", values)


def draw(axis: Any, each: Saved[Prediction]) -> int:
    """Draw one panel; return how many numbers are not finite, which are not drawn."""
    drawing, first, x = each.drawing, each.first, each.first["x"]
    every = np.concatenate([arrays["y"] for arrays in each.arrays], axis=1)
    y = np.ma.masked_invalid(every)
    middle: Any = np.ma.median(y, axis=1)  # type: ignore[no-untyped-call]
    reach = [middle - y.min(axis=1), y.max(axis=1) - middle]
    dark, light = colours(3)[:2]
    axis.plot(first["line_x"], first["line_y"], "--", color=light, zorder=1,
              label=words(drawing.line_label))  # fmt: skip
    axis.errorbar(x, middle.filled(np.nan), np.ma.filled(reach, np.nan), fmt="o", color=dark,
                  markersize=5, capsize=3, linewidth=1.2, label="measured")  # fmt: skip
    if drawing.log_x:
        axis.set_xscale("log")
        axis.set_xticks(x, [f"{value:g}" for value in x])
        axis.minorticks_off()
    elif (x == x.round()).all():
        axis.xaxis.get_major_locator().set_params(integer=True)
    axis.margins(y=0.15)
    label(axis, drawing)
    axis.legend(loc="best")
    return int((~np.isfinite(every)).sum())
