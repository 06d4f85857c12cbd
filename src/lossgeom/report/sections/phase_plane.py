"""Phase planes: a motion, where each coordinate stands still, and paths."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from lossgeom.plot.style import THRESHOLD, colours, label, panels, words
from lossgeom.recording.for_report import PhasePlane
from lossgeom.report._section import Section
from lossgeom.report._source import Source
from lossgeom.report.figures import save
from lossgeom.report.sections._saved import Arrays, Saved, saved

FLOW = "0.72"
STILL = "#b2182b"
MARKERS = ("o", "s", "^", "D", "v")


def phase_plane(source: Source, figures: Path) -> Section | None:
    """A panel for each drawing of :class:`PhasePlane`, of the first run."""
    found = saved(source, PhasePlane)
    if not found:
        return None
    figure, axes = panels(1.5 + 3.9 * max(2, len(found)), 4.4, columns=len(found))
    for axis, each in zip(axes[0], found, strict=True):
        draw(axis, each)
    handles = axes[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3)
    return Section("Phase plane", "phase_plane.html", {"svg": save(figure, figures, "phase_plane")})


def draw(axis: Any, each: Saved[PhasePlane]) -> None:
    """Draw one panel, of the first run."""
    drawing, arrays = each.drawing, each.first
    x, y, exists = arrays["x"], arrays["y"], arrays["exists"] > 0
    axis.contourf(x, y, ~exists, levels=[0.5, 1.5], colors=["0.92"])
    motion = (np.where(exists, arrays[name], np.nan) for name in ("dx", "dy"))
    axis.streamplot(x, y, *motion, color=FLOW, linewidth=0.7, arrowsize=0.7, density=0.6,
                    broken_streamlines=False)  # fmt: skip
    for name, text, dashes in (
        ("still_x", drawing.still_x, "-"), ("still_y", drawing.still_y, "--"),
    ):  # fmt: skip
        axis.contour(x, y, arrays[name], levels=[0], colors=STILL, linestyles=dashes,
                     linewidths=1.2)  # fmt: skip
        axis.plot([], [], dashes, color=STILL, linewidth=1.2, label=words(text))
    axis.axvline(0, color="0.35", linewidth=0.8, label=words(drawing.rest_label))
    axis.axhline(drawing.edge, **THRESHOLD, label=words(drawing.edge_label))
    axis.axhline(drawing.limit, color="0.35", linestyle=":", linewidth=1,
                 label=words(drawing.limit_label))  # fmt: skip
    _draw_paths(axis, arrays)
    axis.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    label(axis, drawing)


def _draw_paths(axis: Any, arrays: Arrays) -> None:
    """Join every second step, so that each path is two lines that do not jump to and fro."""
    names = sorted(name for name in arrays if re.fullmatch(r"path_\d+", name))
    for i, (name, colour) in enumerate(zip(names, colours(len(names)), strict=True)):
        path, marker = arrays[name], MARKERS[i % len(MARKERS)]
        for first in (0, 1):
            axis.plot(
                *path[first::2].T, marker=marker, color=colour, markersize=2.2, linewidth=0.9,
                zorder=3,
            )  # fmt: skip
        start, end = path[0], path[-1]
        axis.plot(*start, marker, color=colour, markersize=7, zorder=4,
                  label=words(f"descent from ({start[0]:g}, {start[1]:g})"))  # fmt: skip
        axis.plot(*end, "*", color=colour, markersize=11, markeredgecolor="white", zorder=5)
