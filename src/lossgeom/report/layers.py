"""The structure of layers in a row of a table each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from lossgeom.recording.forms import number

LEGEND = {
    "outliers, gap": "eigenvalues before the largest ratio of neighbours among those measured; "
    "that ratio",
    "overlap": "of the top eigenspaces of block and decoupling, by dimension; a small one of 1 "
    "alone says little where the first eigenvalues are close",
    "random": "the overlap of two random spaces of all measured dimensions",
    "rank one": "share of the top eigenvector, as an outputs x inputs matrix, that is of rank one",
    "along E[x]": "its share along the mean input",
    "mu1/mu2": "ratio of the two largest eigenvalues of E[x x^T]",
    "error, best": "relative distance of the decoupling, and of the closest Kronecker product, "
    "from the Gauss-Newton block, which is the Hessian's between ReLUs",
    "trace": "that of the decoupling relative to the block's",
}


def layers_table(layers: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Rows of text, the headings first, from the layers of a summary."""
    k = max(len(layer["overlap"]) for layer in layers)
    rows = [_cells(layer, sorted({1, min(5, k), k})) for layer in layers]
    return [list(rows[0]), *(list(row.values()) for row in rows)]


def errors_table(layers: Sequence[dict[str, Any]]) -> list[list[str]]:
    """The same of the errors of Kronecker products, that of the best one first."""
    names = sorted(layers[0]["errors"], key=lambda name: name != "best")
    rows = [[layer["layer"], *(_error(layer["errors"][n]) for n in names)] for layer in layers]
    return [["layer", *names], *rows]


def _cells(layer: dict[str, Any], dimensions: Sequence[int]) -> dict[str, str]:
    overlap, outliers, errors = layer["overlap"], layer["outliers"], layer["errors"]
    at = [f"{overlap[j - 1]:.2f}" if j <= len(overlap) else "-" for j in dimensions]
    some = outliers and outliers["gap"]
    gap = f"{outliers['count']} of {len(overlap)}, {_number(outliers['gap'])}" if some else ""
    return {
        "layer": layer["layer"],
        "outputs x inputs": "{} x {}".format(*layer["shape"]),
        "outliers, gap": gap,
        f"overlap of {', '.join(map(str, dimensions))}": " ".join(at),
        "random": f"{layer['baseline'][-1]:.2g}",
        "rank one": f"{layer['rank_one_energy'][0]:.2f}",
        "along E[x]": f"{layer['mean_input_energy'][0]:.2f}",
        "mu1/mu2": _number(layer["input_ratio"]),
        "error": _error(errors.get("decoupling")),
        "best": _error(errors.get("best")),
        "trace": _number(layer["trace_ratios"].get("decoupling")),
    }


def _error(error: dict[str, Any] | None) -> str:
    """An error of a Kronecker product, with its own error where that is seen."""
    if error is None:
        return ""
    bar = f" ± {error['stderr']:.1g}" if (error["stderr"] or 0.0) > 5e-4 else ""
    return f"{error['value']:.3f}{bar}" + ("" if error["converged"] else ", not converged")


def _number(value: Any) -> str:
    """A number as JSON has it, in words; nothing for none."""
    found: float | None = number(value)
    return "" if found is None or math.isnan(found) else f"{found:.3g}"
