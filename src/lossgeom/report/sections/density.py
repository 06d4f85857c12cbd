"""Spectral densities of a measurement, one panel for each matrix."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from lossgeom.plot.densities import draw_density
from lossgeom.plot.style import THRESHOLD, colours, panels
from lossgeom.recording.record_format import MATRICES
from lossgeom.report._section import Section
from lossgeom.report._source import Source
from lossgeom.report.figures import save
from lossgeom.report.summary import summary
from lossgeom.report.wording import named_threshold


def density(source: Source, figures: Path) -> Section | None:
    """A figure of densities on a logarithmic axis, with error bands and the eigenvalues found."""
    record = source.measurement
    if record is None:
        return None
    loaded = {m: record.load_arrays(f"{m}_density") for m in ("hessian", "gauss_newton")}
    arrays = {
        matrix: {name: tensor.numpy() for name, tensor in found[0].items()}
        for matrix, found in loaded.items()
        if found is not None and found[0]["density"].isfinite().all()
    }
    if not arrays:
        return None
    probes, steps = next(iter(arrays.values()))["nodes"].shape
    widths = [f"{float(c['width']):.2g} ({MATRICES[matrix]})" for matrix, c in arrays.items()]
    values = {
        "svg": _figure(summary(record), arrays, figures),
        "exact": probes == 1,
        "probes": probes,
        "steps": steps,
        "widths": " and ".join(widths),
    }
    return Section("Spectral density", "density.html", values)


def _figure(found: dict[str, Any], arrays: dict[str, Any], figures: Path) -> str:
    figure, axes = panels(8, 0.6 + 2.4 * len(arrays), rows=len(arrays), sharex=True)
    for axis, (matrix, columns), colour in zip(axes.flat, arrays.items(), colours(3), strict=False):
        _draw(axis, columns, found["problem"]["parameters"], colour)
        _mark(axis, found["eigenvalues"].get(matrix), colour)
        axis.set_ylabel("density")
        axis.set_title(MATRICES[matrix], loc="left")
    if found["stability"] is not None:
        _draw_threshold(axes.flat, found["stability"])
    axes[-1, 0].set_xlabel("eigenvalue")
    return save(figure, figures, "spectral_density")


def _draw(axis: Any, columns: dict[str, Any], P: int, colour: Any) -> None:
    """Draw the mean over probes with its standard error, and how high one eigenvalue would be."""
    one = 1 / (P * float(columns["width"]) * math.sqrt(2 * math.pi))
    parts = (columns[name] for name in ("grid", "density", "stderr"))
    draw_density(axis, *parts, errors=1, one_eigenvalue=one, color=colour)
    axis.axhline(one, color="0.5", linestyle=":", linewidth=1)
    across = axis.get_yaxis_transform()
    axis.text(0.005, one, "one eigenvalue", va="bottom", color="0.4", transform=across)


def _mark(axis: Any, pairs: dict[str, list[Any]] | None, colour: Any) -> None:
    """Draw the largest eigenvalues as triangles, hollow where they have not converged."""
    if pairs is None:
        return
    for value, converged in zip(pairs["values"], pairs["converged"], strict=True):
        if math.isfinite(value):
            axis.plot(
                value, 0.03, "^", color=colour, markersize=5, clip_on=False,
                markerfacecolor=colour if converged else "none",
                transform=axis.get_xaxis_transform(),
            )  # fmt: skip


def _draw_threshold(axes: Any, stability: dict[str, float]) -> None:
    """Draw the edge of stability, if it is in sight."""
    value = stability["threshold"]
    low, high = axes[0].get_xlim()
    for axis in axes if low <= value <= high + 0.5 * (high - low) else ():
        axis.axvline(value, **THRESHOLD)
        axis.annotate(
            named_threshold(stability), (value, 0.98), (-3, 0),
            xycoords=axis.get_xaxis_transform(), textcoords="offset points",
            rotation=90, ha="right", va="top",
        )  # fmt: skip
