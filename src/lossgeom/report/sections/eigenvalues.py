"""The largest eigenvalues of a measurement, one by one."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from lossgeom.extras import required
from lossgeom.recording.record_format import MATRICES
from lossgeom.report import figures as drawing
from lossgeom.report._section import Section
from lossgeom.report._source import Source
from lossgeom.report.summary import summary
from lossgeom.report.wording import rounded

MARKERS = {"hessian": "o", "gauss_newton": "s"}
DECADE = 10.0  # beyond which values are shown on a logarithmic axis

Pairs = dict[str, list[Any]]


def eigenvalues(source: Source, figures: Path) -> Section | None:
    """A row per eigenvalue, and a figure of both matrices side by side."""
    if source.measurement is None:
        return None
    found = summary(source.measurement)["eigenvalues"]
    if not found:
        return None
    rows = max(len(pairs["values"]) for pairs in found.values())
    values = {
        "matrices": [MATRICES[matrix] for matrix in found],
        "rows": [[_cell(pairs, i) for pairs in found.values()] for i in range(rows)],
        "svg": None,
    }
    if rows > 1 and all(map(math.isfinite, _all(found))):
        with required("matplotlib").rc_context(drawing.STYLE):
            values["svg"] = _figure(found, figures)
    return Section("Largest eigenvalues", "eigenvalues.html", values)


def _all(found: dict[str, Pairs]) -> list[float]:
    return [value for pairs in found.values() for value in pairs["values"]]


def _cell(pairs: Pairs, i: int) -> dict[str, Any]:
    if i >= len(pairs["values"]):
        return {"value": "", "residual": "", "good": True}
    value, residual, good = (pairs[key][i] for key in ("values", "residuals", "converged"))
    said = f"{residual:.1e}" + ("" if good else ", not converged")
    return {"value": rounded(value, residual), "residual": said, "good": good}


def _figure(found: dict[str, Pairs], figures: Path) -> str:
    figure = required("matplotlib.figure").Figure(figsize=(8, 2.8), layout="constrained")
    axis = figure.subplots()
    for (matrix, pairs), colour in zip(
        found.items(), drawing.colours(3)[: len(found)], strict=True
    ):
        shift = 0.06 if matrix == "hessian" else -0.06
        for i, (value, residual, good) in enumerate(
            zip(pairs["values"], pairs["residuals"], pairs["converged"], strict=True)
        ):
            axis.errorbar(
                i + 1 - shift, value, residual, fmt=MARKERS[matrix], color=colour, markersize=5,
                markerfacecolor=colour if good else "none", linewidth=1,
                label=MATRICES[matrix] if i == 0 else None,
            )  # fmt: skip
    values = _all(found)
    if min(values) > 0 and max(values) > DECADE * min(values):
        axis.set_yscale("log")
    axis.set_xlabel("number")
    axis.set_ylabel("eigenvalue")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend()
    return drawing.save(figure, figures, "eigenvalues")
