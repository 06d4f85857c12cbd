"""The structure of layers in a row of a table each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


def layers_table(layers: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Rows of text, the headings first, from the layers of a summary."""
    rows = [_cells(layer) for layer in layers]
    return [list(rows[0]), *(list(row.values()) for row in rows)]


def errors_table(layers: Sequence[dict[str, Any]]) -> list[list[str]]:
    """The same of the errors of Kronecker products."""
    rows = [[layer["layer"], *map(_error, layer["errors"].values())] for layer in layers]
    return [["layer", *layers[0]["errors"]], *rows]


def _cells(layer: dict[str, Any]) -> dict[str, str]:
    overlap, outliers, errors = layer["overlap"], layer["outliers"], layer["errors"]
    at = [overlap[min(j, len(overlap)) - 1] for j in (1, 5, len(overlap))]
    gap = "{count}, {gap:.3g}".format(**outliers) if outliers and outliers["gap"] else ""
    return {
        "layer": layer["layer"],
        "outputs x inputs": "{} x {}".format(*layer["shape"]),
        "outliers, gap": gap,
        "overlap of 1, 5, k": " ".join(f"{value:.2f}" for value in at),
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


def _number(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.3g}"
