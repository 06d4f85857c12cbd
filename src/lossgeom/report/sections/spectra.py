"""Spectra of matrices side by side: densities with their outliers, and the largest eigenvalues."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lossgeom.plot.spectra import draw_density, draw_spectra
from lossgeom.plot.style import SHORT_DASHES, looks, panels, words
from lossgeom.recording.for_report import Spectra
from lossgeom.report._section import Section
from lossgeom.report._source import Source
from lossgeom.report.figures import save
from lossgeom.report.sections._saved import Saved, saved_by

Cell = Saved[Spectra]
Cells = dict[tuple[int, str], Cell]  # by row and column


def spectra(source: Source, figures: Path) -> Section | None:
    """A grid of points by columns, of the first run of each column that has them."""
    cells = _cells(source)
    if not cells:
        return None
    dense = {place: cell for place, cell in cells.items() if _has_densities(cell)}
    values = {
        "densities": _figure(dense, _density_panel, "spectra", figures) if dense else None,
        "eigenvalues": _figure(cells, _eigenvalue_panel, "eigenvalues", figures),
        "marked_as": next(iter(cells.values())).drawing.marked_as,
    }
    return Section("Spectra", "spectra.html", values)


def _cells(source: Source) -> Cells:
    """One record's spectra for each place: with densities rather than without, then the first."""
    cells: Cells = {}
    for record in source.records.values():
        for row, _, cell in saved_by(record, Spectra):
            there = cells.get((row, cell.drawing.column))
            if there is None or (_has_densities(cell) and not _has_densities(there)):
                cells[row, cell.drawing.column] = cell
    return cells


def _has_densities(cell: Cell) -> bool:
    return all(f"{matrix}_density" in cell.first for matrix in cell.drawing.matrices)


def _figure(cells: Cells, draw: Callable[[Any, Cell], None], name: str, figures: Path) -> str:
    """Panels by row and column, with labels at the left and at the bottom, and one legend."""
    rows = sorted({row for row, _ in cells})
    columns = list(dict.fromkeys(column for _, column in cells))
    width, height = 1.5 + 3.9 * max(2, len(columns)), 0.8 + 2.1 * len(rows)
    figure, axes = panels(width, height, rows=len(rows), columns=len(columns), sharey="row")
    places = [(row, column) for row in rows for column in columns]
    labels: tuple[Any, Any] = ((), ())
    for place, axis in zip(places, axes.flat, strict=True):
        if place not in cells:
            axis.set_axis_off()
            continue
        drawing = cells[place].drawing
        draw(axis, cells[place])
        axis.set_title(words(f"{drawing.column}: {drawing.row}"))
        labels = labels if labels[0] else axis.get_legend_handles_labels()
        if place[0] == rows[-1]:
            axis.set_xlabel(X_LABELS[name])
    for axis in axes[:, 0]:
        axis.set_ylabel(Y_LABELS[name])
    figure.legend(*labels, loc="outside upper center", ncols=len(labels[0]))
    return save(figure, figures, name)


X_LABELS = {"spectra": "eigenvalue", "eigenvalues": "place in the list, from the largest"}
Y_LABELS = {"spectra": "spectral density", "eigenvalues": "eigenvalue"}


def _density_panel(axis: Any, cell: Cell) -> None:
    matrices = cell.drawing.matrices
    for i, ((key, name), look) in enumerate(
        zip(matrices.items(), looks(len(matrices)), strict=True)
    ):
        colour, dashes, marker = look
        draw_density(
            axis,
            *(cell.first[f"{key}_{part}"] for part in ("grid", "density", "stderr")),
            outliers=cell.first[f"{key}_values"][: cell.drawing.marked],
            one_eigenvalue=float(cell.first[f"{key}_one_eigenvalue"]),
            label=words(name),
            marker=marker,
            mark_height=0.03 + 0.05 * i,
            color=colour,
            linestyle=dashes,
        )


def _eigenvalue_panel(axis: Any, cell: Cell) -> None:
    marked = cell.drawing.marked
    values = {
        words(name): cell.first[f"{key}_values"] for key, name in cell.drawing.matrices.items()
    }
    draw_spectra(axis, {name: np.where(of > 0, of, np.nan) for name, of in values.items()})
    axis.set(yscale="log", xlabel="", ylabel="")
    axis.axvline(marked + 0.5, color="0.4", linestyle=SHORT_DASHES, linewidth=1)
    text = f" {words(cell.drawing.marked_as)} = {marked}"
    axis.text(marked + 0.5, 0.03, text, ha="left", va="bottom", color="0.3",
              transform=axis.get_xaxis_transform())  # fmt: skip
