"""Drawing a spectral density, with the eigenvalues that stand out from it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

DECADES_BELOW_ONE_EIGENVALUE = 1.0


def draw_density(
    axes: Any,
    grid: ArrayLike,
    density: ArrayLike,
    stderr: ArrayLike,
    *,
    outliers: ArrayLike = (),
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
        stderr: (g,) standard error, of which a band is drawn.
        outliers: eigenvalues to mark on the axis below.
        errors: how many of them the band has on each side.
        one_eigenvalue: the height of a single eigenvalue in this density, 1 / (n width sqrt(2 pi)),
            which is where the axis starts to be of no interest.
        label: for the legend.
        marker: of the outliers.
        mark_height: of the outliers' marks, as a fraction of the axis.
        style: of the line, such as ``color`` and ``linestyle``.
    """
    x, height, error = (np.asarray(part, dtype=float) for part in (grid, density, stderr))
    (line,) = axes.plot(x, np.where(height > 0, height, np.nan), label=label, **style)
    axes.set_yscale("log")
    floor = _floor(height, one_eigenvalue)
    if error.any():
        low, high = np.maximum(height - errors * error, floor / 10), height + errors * error
        axes.fill_between(x, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    axes.set_ylim(bottom=floor)
    marks = np.asarray(outliers, dtype=float)
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
