"""Spectral densities of a measurement, one panel for each matrix."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lossgeom.plot.spectra import draw_levels, draw_measured
from lossgeom.plot.style import colours, panels
from lossgeom.recording.record_format import MATRICES
from lossgeom.report._section import Section
from lossgeom.report._source import Source
from lossgeom.report.figures import save
from lossgeom.report.summary import summary
from lossgeom.report.wording import formula_of


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
    stability, size = found["stability"], found["problem"]["parameters"]
    levels = {} if stability is None else {formula_of(stability): stability["threshold"]}
    figure, axes = panels(8, 0.6 + 2.4 * len(arrays), rows=len(arrays), sharex=True)
    for axis, (matrix, columns), colour in zip(axes.flat, arrays.items(), colours(3), strict=False):
        pairs = found["eigenvalues"].get(matrix)
        each = SimpleNamespace(size=size, **columns)
        draw_measured(axis, each, pairs and SimpleNamespace(**pairs), None, colour)
        axis.set_ylabel("density\n(1 / eigenvalue)")
        axis.set_title(MATRICES[matrix], loc="left")
    for axis in axes.flat:
        draw_levels(axis, levels)
    axes[-1, 0].set_xlabel("eigenvalue")
    return save(figure, figures, "spectral_density")
