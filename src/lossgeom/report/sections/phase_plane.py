"""Phase planes: a motion, where each coordinate stands still, and paths."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from lossgeom.extras import required
from lossgeom.report import figures as drawing
from lossgeom.report._section import Section
from lossgeom.report._source import Source
from lossgeom.report.figures import words
from lossgeom.report.sections._saved import Saved, saved

FLOW = "0.72"
DENSITY = 0.6
STILL = {"still_x": ("#b2182b", "-"), "still_y": ("#b2182b", "--")}
MARKERS = ("o", "s", "^", "D", "v")


def phase_plane(source: Source, figures: Path) -> Section | None:
    """Side by side, of the first run: what manifests list under ``phase_planes``.

    Each holds ``x``, ``y``, the motion ``dx`` and ``dy`` and what is zero where a coordinate stands
    still, ``still_x`` and ``still_y``, all (y, x); ``exists`` (y, x); and paths ``path_0``, ...
    """
    planes = saved(source, "phase_planes")
    if not planes:
        return None
    with required("matplotlib").rc_context(drawing.STYLE):
        figure = required("matplotlib.figure").Figure(
            figsize=(1.5 + 3.9 * max(2, len(planes)), 4.4), layout="constrained"
        )
        axes = figure.subplots(1, len(planes), squeeze=False)[0]
        for axis, plane in zip(axes, planes.values(), strict=True):
            draw(axis, plane)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
        svg = drawing.save(figure, figures, "phase_plane")
    return Section("Phase plane", "phase_plane.html", {"svg": svg})


def draw(axis: Any, plane: Saved) -> None:
    """One panel, of the first run."""
    arrays, facts = plane.arrays[0], plane.facts
    x, y, exists = arrays["x"], arrays["y"], arrays["exists"] > 0
    axis.contourf(x, y, ~exists, levels=[0.5, 1.5], colors=["0.92"])
    motion = (np.where(exists, arrays[name], np.nan) for name in ("dx", "dy"))
    axis.streamplot(x, y, *motion, color=FLOW, linewidth=0.7, arrowsize=0.7, density=DENSITY,
                    broken_streamlines=False)  # fmt: skip
    for name, (colour, dashes) in STILL.items():
        axis.contour(x, y, arrays[name], levels=[0], colors=colour, linestyles=dashes,
                     linewidths=1.2)  # fmt: skip
        axis.plot([], [], dashes, color=colour, linewidth=1.2, label=words(facts[name]))
    axis.axvline(0, color="0.35", linewidth=0.8, label=words(facts["rest_label"]))
    axis.axhline(facts["edge"], color="black", linestyle=(0, (2, 2)), linewidth=1,
                 label=words(facts["edge_label"]))  # fmt: skip
    axis.axhline(facts["limit"], color="0.35", linestyle=":", linewidth=1,
                 label=words(facts["limit_label"]))  # fmt: skip
    _draw_paths(axis, arrays)
    axis.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    axis.set_title(words(facts["title"]))
    axis.set_xlabel(words(facts["x_label"]))
    axis.set_ylabel(words(facts["y_label"]))


def _draw_paths(axis: Any, arrays: dict[str, np.ndarray]) -> None:
    """Every second step joined, so that each path is two lines that do not jump to and fro."""
    names = sorted(name for name in arrays if re.fullmatch(r"path_\d+", name))
    for i, (name, colour) in enumerate(zip(names, drawing.colours(len(names)), strict=True)):
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
