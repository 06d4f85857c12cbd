"""A number over two settings, with what the runs of most cells have in common."""

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

MARKERS = ("o", "x", "^")
HALF = 0.5


def heat_map(source: Source, figures: Path) -> Section | None:
    """A panel for each name that manifests list under ``heat_maps``, over all runs.

    Each holds ``x`` (n,), ``y`` (m,), the array (m, n) that the fact ``values`` names, and shares
    (m, n) for the fact ``marks``: a cell is marked where a share is at least a half.
    """
    found = saved(source, "heat_maps")
    if not found:
        return None
    with required("matplotlib").rc_context(drawing.STYLE):
        sizes = [each.arrays[0][each.facts["values"]].shape for each in found.values()]
        rows, columns = (max(side) for side in zip(*sizes, strict=True))
        figure = required("matplotlib.figure").Figure(
            figsize=(2.6 + (0.7 * columns + 0.4) * len(found), 1.6 + 0.42 * rows),
            layout="constrained",
        )
        axes = figure.subplots(1, len(found), squeeze=False)[0]
        for axis, each in zip(axes, found.values(), strict=True):
            draw(figure, axis, each)
        svg = drawing.save(figure, figures, "heat_map")
    runs = len(next(iter(found.values())).arrays)
    return Section("Phase diagram", "heat_map.html", {"svg": svg, "runs": runs})


def draw(figure: Any, axis: Any, each: Saved) -> None:
    """One panel, with its bar of colours and a legend."""
    facts, first = each.facts, each.arrays[0]
    every = np.ma.masked_invalid(each.stack(facts["values"]))
    values: Any = np.ma.median(every, axis=0)  # type: ignore[no-untyped-call]
    axis.set_facecolor("0.85")  # where there is no number
    image = axis.imshow(values, cmap="viridis", origin="lower", aspect="auto")
    _write(axis, image, values)
    for i, (name, label) in enumerate(facts["marks"].items()):
        rows, columns = np.nonzero(each.stack(name).mean(axis=0) >= HALF)
        axis.scatter(
            columns + 0.36, rows + 0.22, s=22, marker=MARKERS[i], color="#d7301f", linewidths=1.4,
            label=words(label),
        )  # fmt: skip
    axis.set_xticks(range(len(first["x"])), [f"{value:g}" for value in first["x"]])
    axis.set_yticks(range(len(first["y"])), [f"{value:g}" for value in first["y"]])
    axis.set_title(words(facts["title"]))
    axis.set_xlabel(words(facts["x_label"]))
    axis.set_ylabel(words(facts["y_label"]))
    axis.tick_params(length=0)
    figure.colorbar(image, ax=axis, label=words(facts["values_label"]))
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=2)


def _write(axis: Any, image: Any, values: Any) -> None:
    """The numbers, in black on what is light and in white on what is dark."""
    for (row, column), value in np.ndenumerate(values.filled(np.nan)):
        if np.isfinite(value):
            dark = image.norm(value) < HALF
            axis.text(column - 0.08, row, f"{value:.2f}", ha="center", va="center", fontsize=8,
                      color="white" if dark else "black")  # fmt: skip
