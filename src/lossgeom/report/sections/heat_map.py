"""A number over two settings, with what the runs of most cells have in common."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from lossgeom.plot.style import label, panels, words
from lossgeom.recording.for_report import HeatMap
from lossgeom.report._section import Section
from lossgeom.report._source import Source
from lossgeom.report.figures import save
from lossgeom.report.sections._saved import Saved, saved

MARKERS = ("o", "x", "^")
HALF = 0.5


def heat_map(source: Source, figures: Path) -> Section | None:
    """A panel for each drawing of :class:`HeatMap`, over all runs."""
    found = saved(source, HeatMap)
    if not found:
        return None
    sizes = [each.first[each.drawing.values].shape for each in found]
    rows, columns = (max(side) for side in zip(*sizes, strict=True))
    width, height = 2.6 + (0.7 * columns + 0.4) * len(found), 1.6 + 0.42 * rows
    figure, axes = panels(width, height, columns=len(found))
    for axis, each in zip(axes[0], found, strict=True):
        draw(figure, axis, each)
    marked = any(each.drawing.marks for each in found)
    values = {"svg": save(figure, figures, "heat_map"), "runs": len(found[0].arrays)}
    title = "Phase diagram" if marked else "Maps"
    return Section(title, "heat_map.html", {**values, "marked": marked})


def draw(figure: Any, axis: Any, each: Saved[HeatMap]) -> None:
    """Draw one panel, with its bar of colours and a legend."""
    drawing, x, y = each.drawing, each.first["x"], each.first["y"]
    every = np.ma.masked_invalid(each.stack(drawing.values))
    values: Any = np.ma.median(every, axis=0)  # type: ignore[no-untyped-call]
    axis.set_facecolor("0.85")  # where there is no number
    image = axis.imshow(values, cmap="viridis", origin="lower", aspect="auto")
    _write(axis, image, values)
    for marker, (name, text) in zip(cycle(MARKERS), drawing.marks.items(), strict=False):
        rows, columns = np.nonzero(each.stack(name).mean(axis=0) >= HALF)
        axis.scatter(
            columns + 0.36, rows + 0.22, s=22, marker=marker, color="#d7301f", linewidths=1.4,
            label=words(text),
        )  # fmt: skip
    axis.set_xticks(range(len(x)), [f"{value:g}" for value in x])
    axis.set_yticks(range(len(y)), [f"{value:g}" for value in y])
    label(axis, drawing)
    axis.tick_params(length=0)
    figure.colorbar(image, ax=axis, label=words(drawing.values_label))
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=2)


def _write(axis: Any, image: Any, values: Any) -> None:
    """Write the numbers, in black on what is light and in white on what is dark."""
    for (row, column), value in np.ndenumerate(values.filled(np.nan)):
        if np.isfinite(value):
            dark = image.norm(value) < HALF
            axis.text(column - 0.08, row, f"{value:.2f}", ha="center", va="center", fontsize=8,
                      color="white" if dark else "black")  # fmt: skip
