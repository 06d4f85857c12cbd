"""Lines over a setting, and points that stayed or left below and above them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lossgeom.messages.extras import required
from lossgeom.plot.style import DASHES, colours, label, panels, words
from lossgeom.recording.for_report import Boundary
from lossgeom.report._section import Section
from lossgeom.report._source import Source
from lossgeom.report.figures import save
from lossgeom.report.sections._saved import Saved, saved_by

COLUMNS = 3
STAYS, LEAVES = "#2b8cbe", "#d7301f"  # two hues that differ in lightness, too


def boundaries(source: Source, figures: Path) -> Section | None:
    """A panel for each drawing of :class:`Boundary` of each run."""
    found = [
        each for record in source.records.values() for _, _, each in saved_by(record, Boundary)
    ]
    if not found:
        return None
    columns = min(COLUMNS, len(found))
    rows = -(-len(found) // columns)
    figure, axes = panels(
        0.8 + 3.2 * max(2, columns), 0.9 + 2.7 * rows, rows=rows, columns=columns,
        sharex=True, sharey=True,
    )  # fmt: skip
    for axis, each in zip(axes.flat, found, strict=False):
        draw(axis, each)
        axis.label_outer()
    for axis in axes.flat[len(found) :]:
        axis.remove()
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    values = {"svg": save(figure, figures, "boundaries"), "panels": len(found)}
    return Section("What stays and what leaves", "boundaries.html", values)


def draw(axis: Any, each: Saved[Boundary]) -> None:
    """Draw one panel, with both axes logarithmic."""
    drawing, arrays = each.drawing, each.first
    for i, (name, text) in enumerate(drawing.lines.items()):
        shade = colours(len(drawing.lines) + 1)[i]
        axis.plot(arrays["x"], arrays[name], color=shade, linestyle=DASHES[i], label=words(text))
    left = arrays["left"].astype(bool)
    looks = ((~left, "o", STAYS, drawing.stays), (left, "X", LEAVES, drawing.leaves))
    for chosen, marker, colour, text in looks:
        axis.plot(
            arrays["points_x"][chosen], arrays["points_y"][chosen], marker, color=colour,
            markersize=6, markeredgecolor="white", markeredgewidth=0.5, label=words(text),
        )  # fmt: skip
    axis.set_xscale("log")
    axis.set_xticks(arrays["x"], [f"{value:g}" for value in arrays["x"]])
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(required("matplotlib.ticker").LogLocator(subs=(1, 2, 3, 5)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.minorticks_off()
    label(axis, drawing)
