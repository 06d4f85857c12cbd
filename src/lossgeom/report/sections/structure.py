"""The structure of a model's layers: a table, and a figure for each."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from lossgeom.plot.structure import draw_structure
from lossgeom.report._section import Section
from lossgeom.report._source import Source
from lossgeom.report.figures import save
from lossgeom.report.layers import LEGEND, errors_table, layers_table
from lossgeom.report.summary import layers_of, summary

DRAWN = 12  # layers; all of them are in the tables


def structure(source: Source, figures: Path) -> Section | None:
    """The layers' numbers in tables, and spectra, overlap, maps and eigenvectors of each."""
    if source.measurement is None:
        return None
    layers = summary(source.measurement)["layers"]
    if not layers:
        return None
    drawn = [
        (facts["layer"], save(draw_structure(arrays, facts["outliers"]), figures, f"structure_{i}"))
        for i, (arrays, facts) in enumerate(islice(layers_of(source.measurement), DRAWN))
    ]
    tables = {"layers": layers_table(layers), "errors": errors_table(layers)}
    values = {**tables, "legend": LEGEND, "drawn": drawn, "left": len(layers) - len(drawn)}
    return Section("Structure of the layers", "structure.html", values)
