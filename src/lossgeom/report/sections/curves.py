"""Curves of single runs, with a level that they are compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lossgeom.plot.style import THRESHOLD, colours, label, panels, words
from lossgeom.recording.for_report import Curves
from lossgeom.report._section import Section
from lossgeom.report._source import Source
from lossgeom.report.figures import save
from lossgeom.report.sections._saved import Saved, saved

ABOVE = 1.6  # times the level, up to which a panel reaches


def curves(source: Source, figures: Path) -> Section | None:
    """A panel for each drawing of :class:`Curves`, of the first run."""
    found = saved(source, Curves)
    if not found:
        return None
    figure, axes = panels(1.5 + 3.0 * max(2, len(found)), 3.2, columns=len(found), sharey=True)
    for axis, each in zip(axes[0], found, strict=True):
        draw(axis, each)
        axis.label_outer()
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center")
    return Section("Single runs", "curves.html", {"svg": save(figure, figures, "curves")})


def draw(axis: Any, each: Saved[Curves]) -> None:
    """Draw one panel, with a cross at the top where a run diverges."""
    drawing, x, y = each.drawing, each.first["x"], each.first["y"]
    for curve, colour in zip(y.T, colours(y.shape[1]), strict=True):
        axis.plot(x, curve, color=colour, linewidth=1)
        ended = np.flatnonzero(~np.isfinite(curve))
        if len(ended):
            axis.plot(x[ended[0]], 0.98, "x", color=colour, markersize=5, clip_on=False,
                      transform=axis.get_xaxis_transform())  # fmt: skip
    axis.axhline(drawing.line, **THRESHOLD, label=words(drawing.line_label))
    axis.set_ylim(0, ABOVE * drawing.line)
    label(axis, drawing)
