"""Spectral densities, and eigenvalues one by one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from lossgeom.linalg import EigenPairs, SpectralDensity
from lossgeom.plot.style import (
    BEHIND,
    THRESHOLD,
    Numbers,
    drawing,
    literal,
    looks,
    named,
    numbers,
    threshold,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DECADES_BELOW_ONE_EIGENVALUE = 1.0
ABOVE = 3.0  # times the highest density
DECADE = 10.0  # beyond which eigenvalues are shown on a logarithmic axis
LINE = 0.09  # of words, as a part of a panel
WIDE = 0.5  # of an axis, beyond its end, up to where it is lengthened to show a level
SIZE = (6.4, 3.2)  # inches

Eigenvalues = EigenPairs | Tensor | Sequence[float]


def density(
    density: SpectralDensity | Mapping[str, SpectralDensity],
    *,
    eigenvalues: EigenPairs | Mapping[str, EigenPairs] | None = None,
    levels: Mapping[str, float] | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Draw a spectral density on a logarithmic axis, with eigenvalues that were found one by one.

    Bands reach one standard error to both sides. The dotted line is the height of a single
    eigenvalue in the density. Triangles are the eigenvalues; hollow ones have not converged.

    Args:
        density: of :func:`lossgeom.spectral_density`; or several by name.
        eigenvalues: of the same matrix, or by the names of several.
        levels: what to compare eigenvalues with, by name, such as ``{"2/lr": 2 / lr}``.
        ax: matplotlib's axes to draw on, which keep their style; a new figure by default.

    Returns:
        The figure, with eigenvalues on the x axis, and on the y axis the density in parts of all
        eigenvalues by a unit of them.

    Raises:
        ImportError: without matplotlib, which the extra ``plot`` brings.
        ValueError: for a level that is NaN.

    >>> import torch, lossgeom as lg
    >>> A = torch.diag(torch.linspace(0.0, 4.0, 50))
    >>> figure = lg.plot.density(lg.spectral_density(A), levels={"2/lr": 3.0})
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['one eigenvalue', '2/lr = 3']
    """
    unknown = [name for name, value in (levels or {}).items() if math.isnan(value)]
    if unknown:
        raise ValueError(
            f"expected levels that are numbers, got NaN for {unknown[0]!r}; leave it out"
        )
    densities, marked = named(density), {} if eigenvalues is None else named(eigenvalues)
    if not marked.keys() <= densities.keys():
        raise ValueError(
            f"expected eigenvalues by the names of the densities, {list(densities)}, got those of "
            f"{list(marked)}"
        )
    with drawing(ax, *SIZE) as axis:
        for (name, each), look in zip(densities.items(), looks(len(densities)), strict=True):
            colour, dashes, _ = look
            draw_measured(axis, each, marked.get(name), literal(name), colour, linestyle=dashes)
        draw_levels(axis, levels or {})
        axis.set_xlabel("eigenvalue")
        axis.set_ylabel("density (1 / eigenvalue)")
    figure: Figure = axis.figure
    return figure


def spectrum(
    eigenvalues: Eigenvalues | Mapping[str, Eigenvalues], *, ax: Axes | None = None
) -> Figure:
    """Draw eigenvalues in their order, with residuals as bars; hollow ones have not converged.

    The axis is logarithmic where they are positive and more than a decade apart.

    Args:
        eigenvalues: of :func:`lossgeom.top_eigenpairs`, or numbers; or several of both by name.
        ax: matplotlib's axes to draw on, which keep their style; a new figure by default.

    Returns:
        The figure, with the eigenvalues' numbers, from 1, on the x axis.

    Raises:
        ImportError: without matplotlib, which the extra ``plot`` brings.

    >>> import torch, lossgeom as lg
    >>> pairs = lg.top_eigenpairs(torch.diag(torch.tensor([3.0, 2.0, 0.1])), k=2)
    >>> lg.plot.spectrum({"three": [3.0, 2.0, 0.1], "two": pairs}).axes[0].get_yscale()
    'log'
    """
    found = named(eigenvalues)
    with drawing(ax, *SIZE) as axis:
        draw_spectra(axis, {literal(name): each for name, each in found.items()})
    figure: Figure = axis.figure
    return figure


def draw_spectra(axis: Any, spectra: Mapping[str, Any]) -> None:
    """Draw eigenvalues beside each other, with their residuals where they have some."""
    apart = 0.12 / max(len(spectra) - 1, 1)
    every = []
    for i, ((name, found), look) in enumerate(
        zip(spectra.items(), looks(len(spectra)), strict=True)
    ):
        colour, _, marker = look
        plain = isinstance(found, (Tensor, Sequence, np.ndarray))
        values = numbers(found if plain else found.values)
        residuals = 0 * values if plain else numbers(found.residuals)
        good = np.isfinite(values) if plain else numbers(found.converged) > 0
        places = np.arange(1, len(values) + 1) + apart * (i - (len(spectra) - 1) / 2)
        for some, face in ((good, colour), (~good, "none")):
            if not some.any():
                continue
            axis.errorbar(
                places[some], values[some], residuals[some], fmt=marker, color=colour, linewidth=1,
                markersize=5, markerfacecolor=face, label=name or None,
            )  # fmt: skip
            name = ""  # is named once
        every += values[np.isfinite(values)].tolist()
    if every and min(every) > 0 and max(every) > DECADE * min(every):
        axis.set_yscale("log")
    axis.set_xlabel("number")
    axis.set_ylabel("eigenvalue")
    axis.xaxis.get_major_locator().set_params(integer=True)


def draw_measured(
    axis: Any, density: Any, eigenvalues: Any, label: str | None, colour: Any, **style: Any
) -> None:
    """Draw a density with its standard error, how high one eigenvalue would be, and some of them.

    Args:
        axis: matplotlib's.
        density: what has the numbers of a SpectralDensity.
        eigenvalues: what has those of EigenPairs, or None.
        label: for the legend.
        colour: of all of it.
        style: of the line.
    """
    one = 1 / (density.size * float(density.width) * math.sqrt(2 * math.pi))
    parts = (density.grid, density.density, density.stderr)
    draw_density(axis, *parts, errors=1, one_eigenvalue=one, label=label, color=colour, **style)
    axis.axhline(one, color="0.5", linestyle=":", linewidth=1)
    if not axis.texts:
        axis.text(0.005, one, "one eigenvalue", va="bottom", color="0.4", **BEHIND,
                  transform=axis.get_yaxis_transform())  # fmt: skip
    if eigenvalues is None:
        return
    for value, converged in zip(eigenvalues.values, eigenvalues.converged, strict=True):
        if math.isfinite(value):
            axis.plot(
                float(value), 0.03, "^", color=colour, markersize=5, clip_on=False,
                markerfacecolor=colour if converged else "none",
                transform=axis.get_xaxis_transform(),
            )  # fmt: skip


def draw_levels(axis: Any, levels: Mapping[str, float]) -> None:
    """Draw lines across eigenvalues, or say in words which are far above or below all of them."""
    low, high = axis.get_xlim()
    near, line = WIDE * (high - low), 0.98
    for name, value in levels.items():
        text = literal(threshold(name, value))
        if not low - near <= value <= high + near:
            where = "above" if value > high else "below"
            axis.text(0.99, line, f"{text} is {where} this range", ha="right", va="top",
                      transform=axis.transAxes)  # fmt: skip
            line -= LINE
            continue
        axis.axvline(value, **THRESHOLD)
        axis.annotate(
            text, (value, 0.98), (-3, 0), xycoords=axis.get_xaxis_transform(),
            textcoords="offset points", rotation=90, ha="right", va="top",
        )  # fmt: skip


def draw_density(
    axes: Any,
    grid: Numbers,
    density: Numbers,
    stderr: Numbers,
    *,
    outliers: Numbers = (),
    errors: float = 2.0,
    one_eigenvalue: float | None = None,
    label: str | None = None,
    marker: str = "v",
    mark_height: float = 0.03,
    **style: Any,
) -> None:
    """Draw one density on a logarithmic axis, with marks for single eigenvalues.

    Args:
        axes: matplotlib's.
        grid: (g,) points.
        density: (g,) at the points.
        stderr: (g,) standard error, of which a band is drawn where it is known.
        outliers: eigenvalues to mark on the axis below.
        errors: how many of them the band has on each side.
        one_eigenvalue: the height of a single eigenvalue in this density, 1 / (n width sqrt(2 pi)),
            which is where the axis starts to be of no interest.
        label: for the legend.
        marker: of the outliers.
        mark_height: of the outliers' marks, as a fraction of the axis.
        style: of the line, such as ``color`` and ``linestyle``.
    """
    x, height, error = map(numbers, (grid, density, stderr))
    error = np.where(np.isfinite(error), error, 0)
    (line,) = axes.plot(x, np.where(height > 0, height, np.nan), label=label, **style)
    axes.set_yscale("log")
    floor = _floor(height, one_eigenvalue)
    if error.any():
        low, high = np.maximum(height - errors * error, floor / 10), height + errors * error
        axes.fill_between(x, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    before = () if axes.get_autoscaley_on() else axes.get_ylim()  # of others on these axes
    tops = [ABOVE * top for top in height + errors * error if math.isfinite(top)]
    axes.set_ylim(min([floor, *before]), max([floor * ABOVE, *tops, *before]))
    marks = numbers(outliers)
    if len(marks):
        axes.plot(
            marks, np.full(len(marks), mark_height), marker, color=line.get_color(), clip_on=False,
            markersize=4, fillstyle="none", transform=axes.get_xaxis_transform(),
        )  # fmt: skip


def _floor(height: np.ndarray, one_eigenvalue: float | None) -> float:
    """The start of the axis: a decade below a single eigenvalue, or else six below the top."""
    if one_eigenvalue is not None:
        return one_eigenvalue / 10**DECADES_BELOW_ONE_EIGENVALUE
    top = float(np.nanmax(height)) if np.isfinite(height).any() else 1.0
    return top / 1e6
