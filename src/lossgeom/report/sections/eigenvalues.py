"""The largest eigenvalues of a measurement, one by one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lossgeom.plot.spectra import draw_spectra
from lossgeom.plot.style import panels
from lossgeom.recording.record_format import MATRICES
from lossgeom.report._section import Section
from lossgeom.report._source import Source
from lossgeom.report.figures import save
from lossgeom.report.summary import summary
from lossgeom.report.wording import rounded

Pairs = dict[str, list[Any]]


def eigenvalues(source: Source, figures: Path) -> Section | None:
    """A row per eigenvalue, and a figure of both matrices side by side."""
    if source.measurement is None:
        return None
    found = summary(source.measurement)["eigenvalues"]
    if not found:
        return None
    every = [value for pairs in found.values() for value in pairs["values"]]
    rows = max(len(pairs["values"]) for pairs in found.values())
    drawn = rows > 1 and all(map(math.isfinite, every))
    values = {
        "matrices": [MATRICES[matrix] for matrix in found],
        "rows": [[_cell(pairs, i) for pairs in found.values()] for i in range(rows)],
        "svg": _figure(found, figures) if drawn else None,
    }
    return Section("Largest eigenvalues", "eigenvalues.html", values)


def _each(pairs: Pairs) -> Iterator[tuple[float, float, bool]]:
    return zip(pairs["values"], pairs["residuals"], pairs["converged"], strict=True)


def _cell(pairs: Pairs, i: int) -> dict[str, Any]:
    if i >= len(pairs["values"]):
        return {"value": "", "residual": "", "good": True}
    value, residual, good = list(_each(pairs))[i]
    said = f"{residual:.1e}" + ("" if good else ", not converged")
    return {"value": rounded(value, residual), "residual": said, "good": good}


def _figure(found: dict[str, Pairs], figures: Path) -> str:
    figure, ((axis,),) = panels(8, 2.8)
    draw_spectra(
        axis, {MATRICES[matrix]: SimpleNamespace(**pairs) for matrix, pairs in found.items()}
    )
    axis.legend()
    return save(figure, figures, "eigenvalues")
