"""Spectra of matrices side by side: densities with their outliers, and the largest eigenvalues."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lossgeom.extras import required
from lossgeom.recording.record import Record
from lossgeom.report import figures as drawing
from lossgeom.report._section import Section
from lossgeom.report._source import Source
from lossgeom.report.density import draw_density
from lossgeom.report.figures import words

MARKERS = ("o", "x", "+")


@dataclass(frozen=True)
class Spectra:
    """The spectra of some matrices at one point.

    They come from the arrays that the record's manifest lists under ``spectra``. For each matrix m
    those hold ``m_values``, descending eigenvalues, and may hold ``m_grid``, ``m_density``,
    ``m_stderr`` and ``m_one_eigenvalue``, the height of a single eigenvalue in the density.

    Attributes:
        arrays: by name.
        matrices: how to call each matrix.
        column: in which column of panels it belongs.
        row: what the point is.
        marked: how many of the largest eigenvalues to mark.
        marked_as: what that number is.
    """

    arrays: dict[str, np.ndarray]
    matrices: dict[str, str]
    column: str
    row: str
    marked: int
    marked_as: str

    @classmethod
    def of(cls, record: Record, name: str) -> Spectra | None:
        """What a record holds under a name; None if it does not, yet."""
        found = record.load_arrays(name)
        if found is None:
            return None
        tensors, facts = found
        arrays = {key: tensor.double().numpy() for key, tensor in tensors.items()}
        names = ("matrices", "column", "row", "marked", "marked_as")
        return cls(arrays, **{key: facts[key] for key in names})

    @property
    def with_densities(self) -> bool:
        """Whether there is a density of each matrix."""
        return all(f"{matrix}_density" in self.arrays for matrix in self.matrices)


Cells = dict[tuple[int, str], Spectra]  # by row and column


def spectra(source: Source, figures: Path) -> Section | None:
    """Of the first run of each column that has them, as a grid of points by columns."""
    cells = _cells(source)
    if not cells:
        return None
    dense = {place: cell for place, cell in cells.items() if cell.with_densities}
    values: dict[str, Any] = {"densities": None, "marked_as": next(iter(cells.values())).marked_as}
    with required("matplotlib").rc_context(drawing.STYLE):
        if dense:
            values["densities"] = _figure(dense, _density_panel, "spectra", figures)
        values["eigenvalues"] = _figure(cells, _eigenvalue_panel, "eigenvalues", figures)
    return Section("Spectra", "spectra.html", values)


def _cells(source: Source) -> Cells:
    """One record's spectra for each place: with densities rather than without, then the first."""
    cells: Cells = {}
    for record in source.records.values():
        for row, name in enumerate(record.manifest.get("spectra", ())):
            cell = Spectra.of(record, name)
            if cell is None:
                continue
            there = cells.get((row, cell.column))
            if there is None or (cell.with_densities and not there.with_densities):
                cells[row, cell.column] = cell
    return cells


def _figure(cells: Cells, draw: Callable[[Any, Spectra], None], name: str, figures: Path) -> str:
    rows = sorted({row for row, _ in cells})
    columns = list(dict.fromkeys(column for _, column in cells))
    figure = required("matplotlib.figure").Figure(
        figsize=(1.5 + 3.9 * max(2, len(columns)), 0.8 + 2.1 * len(rows)), layout="constrained"
    )
    axes = figure.subplots(len(rows), len(columns), sharey="row", squeeze=False)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            cell = cells.get((row, column))
            if cell is None:
                axes[i, j].set_axis_off()
                continue
            draw(axes[i, j], cell)
            axes[i, j].set_title(words(f"{cell.column}: {cell.row}"))
    _label(figure, axes)
    return drawing.save(figure, figures, name)


def _label(figure: Any, axes: np.ndarray) -> None:
    """Names on the outer axes, and one legend."""
    drawn = [axis for axis in axes.flat if axis.axison]
    for axis in axes[:, 0]:
        axis.set_ylabel(drawn[0].get_ylabel())
    for axis in axes[:, 1:].flat:
        axis.set_ylabel("")
    for axis in axes[:-1].flat:
        axis.set_xlabel("")
    handles, labels = drawn[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))


def _styles(cell: Spectra) -> Sequence[tuple[str, str, Any, str, Any]]:
    """Key, name, colour, marker and dashes of each matrix."""
    palette = drawing.colours(len(cell.matrices) + 1)
    return [
        (key, words(name), palette[i], MARKERS[i % len(MARKERS)], drawing.DASHES[i])
        for i, (key, name) in enumerate(cell.matrices.items())
    ]


def _density_panel(axis: Any, cell: Spectra) -> None:
    for i, (key, name, colour, marker, dashes) in enumerate(_styles(cell)):
        draw_density(
            axis,
            *(cell.arrays[f"{key}_{part}"] for part in ("grid", "density", "stderr")),
            outliers=cell.arrays[f"{key}_values"][: cell.marked],
            one_eigenvalue=float(cell.arrays[f"{key}_one_eigenvalue"]),
            label=name,
            marker=marker,
            mark_height=0.03 + 0.05 * i,
            color=colour,
            linestyle=dashes,
        )
    axis.set_ylabel("spectral density")
    axis.set_xlabel("eigenvalue")


def _eigenvalue_panel(axis: Any, cell: Spectra) -> None:
    for key, name, colour, marker, _ in _styles(cell):
        values = cell.arrays[f"{key}_values"]
        shown = np.where(values > 0, values, np.nan)
        axis.plot(
            np.arange(1, len(values) + 1), shown, marker, color=colour, label=name,
            markersize=5, fillstyle="none",
        )  # fmt: skip
    axis.set_yscale("log")
    axis.axvline(cell.marked + 0.5, color="0.4", linestyle=(0, (2, 2)), linewidth=1)
    across = axis.get_xaxis_transform()
    text = f" {words(cell.marked_as)} = {cell.marked}"
    axis.text(cell.marked + 0.5, 0.03, text, ha="left", va="bottom", transform=across, color="0.3")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set_ylabel("eigenvalue")
    axis.set_xlabel("place in the list, from the largest")
