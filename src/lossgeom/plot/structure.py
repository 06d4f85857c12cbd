"""The structure of one layer: its block of the Hessian beside the decoupling."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from lossgeom.plot.spectra import draw_spectra
from lossgeom.plot.style import DASHES, SHORT_DASHES, colours, numbers, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOW = 1e-5  # of the largest eigenvalue; what is below is not of interest


def draw_structure(
    arrays: Mapping[str, Any], outliers: Mapping[str, Any] | None, axes: Any = None
) -> Figure:
    """Draw a layer's block beside its decoupling: spectra, overlap, maps and eigenvectors.

    Args:
        arrays: of :func:`lossgeom.metrics.structure.arrays_of`.
        outliers: the fields of Outliers, or None.
        axes: (2, 4) of matplotlib's; those of a new figure by default.
    """
    found = {name: numbers(array) for name, array in arrays.items()}
    axes = panels(11, 4.8, rows=2, columns=4)[1] if axes is None else axes
    (factors, values, overlap, energies), (outputs, inputs, *images) = axes
    dark, _, light = colours(3)
    _decay(factors, found["output_spectrum"], "E[M], outputs", dark, DASHES[0])
    _decay(factors, found["input_spectrum"], "E[x x$^T$], inputs", light, DASHES[1])
    relative = {"ylabel": "relative to the largest", "yscale": "log"}
    _lines(factors, "spectra of both factors", "number", **relative)
    pairs = SimpleNamespace(**{n: found[n] for n in ("values", "residuals", "converged")})
    draw_spectra(values, {"block": pairs, "decoupled": found["decoupled"]})
    if outliers is not None:
        values.axvline(outliers["count"] + 0.5, color="0.5", linestyle=SHORT_DASHES, linewidth=1)
    _lines(values, "largest eigenvalues", "number")
    k = np.arange(1, len(found["values"]) + 1)
    overlap.plot(k, found["overlap"], "o-", color=dark, label="with the decoupling")
    overlap.plot(k, found["baseline"], color="0.5", linestyle=SHORT_DASHES, label="random")
    _lines(overlap, "overlap of top eigenspaces", "dimension", ylim=(0, 1.02))
    energies.plot(k, found["rank_one_energy"], "o-", color=dark, label="of rank one")
    energies.plot(k, found["mean_input_energy"], "s--", color=light, label="along mean input")
    _lines(energies, "energy of eigenvectors", "number", ylim=(0, 1.02))
    _map(outputs, found["output_map"], "outputs", "eigenvector of E[M]")
    _map(inputs, found["input_map"], "inputs", "eigenvector of E[x x$^T$]")
    for i, axis in enumerate(images):
        _image(axis, found["images"][i : i + 1], i + 1)
    figure: Figure = factors.figure
    return figure


def _decay(axis: Any, values: np.ndarray, label: str, colour: Any, dashes: Any) -> None:
    """Draw a spectrum relative to its largest eigenvalue, as far down as it is of interest."""
    relative = values / values.max() if values.max() > 0 else values
    shown = np.where(relative > LOW, relative, np.nan)
    axis.plot(np.arange(1, len(shown) + 1), shown, color=colour, linestyle=dashes, label=label)


def _lines(axis: Any, title: str, x_label: str, **others: Any) -> None:
    axis.set(title=title, xlabel=x_label, **others)
    axis.legend()
    axis.xaxis.get_major_locator().set_params(integer=True)


def _map(axis: Any, shares: np.ndarray, side: str, x_label: str) -> None:
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest",
                extent=(0.5, shares.shape[1] + 0.5, len(shares) + 0.5, 0.5))  # fmt: skip
    axis.set(title=f"where they lie: {side}", xlabel=x_label, ylabel="top eigenvector")
    for side_of_map in (axis.xaxis, axis.yaxis):
        side_of_map.get_major_locator().set_params(integer=True)


def _image(axis: Any, images: np.ndarray, number: int) -> None:
    """Draw an eigenvector as a matrix, red where positive and blue where negative."""
    if not len(images):
        axis.set_axis_off()
        return
    size = np.abs(images[0]).max()
    axis.imshow(images[0], cmap="RdBu_r", vmin=-size, vmax=size, aspect="auto",
                interpolation="nearest")  # fmt: skip
    title = f"top eigenvector {number}, reshaped"
    axis.set(title=title, xlabel="inputs", ylabel="outputs", xticks=[], yticks=[])
