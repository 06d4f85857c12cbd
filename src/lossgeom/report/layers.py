"""The structure of layers in a row of a table each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

HEADINGS = (
    "layer",
    "outputs x inputs",
    "outliers, gap",
    "overlap of 1, 5, k",
    "random",
    "rank one",
    "along E[x]",
    "mu1/mu2",
    "error",
    "best",
    "trace",
)


def layers_table(layers: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Rows of text, the headings first, from the layers of a summary."""
    return [list(HEADINGS), *map(_row, layers)]


def _row(layer: dict[str, Any]) -> list[str]:
    overlap, outliers, errors = layer["overlap"], layer["outliers"], layer["errors"]
    at = [overlap[min(j, len(overlap)) - 1] for j in (1, 5, len(overlap))]
    return [
        layer["layer"],
        "{} x {}".format(*layer["shape"]),
        "{count}, {gap:.3g}".format(**outliers) if outliers and outliers["gap"] else "",
        " ".join(f"{value:.2f}" for value in at),
        f"{layer['baseline'][-1]:.2g}",
        f"{layer['rank_one_energy'][0]:.2f}",
        f"{layer['mean_input_energy'][0]:.2f}",
        _number(layer["input_ratio"]),
        error_cell(errors.get("decoupling")),
        error_cell(errors.get("best")),
        _number(layer["trace_ratios"].get("decoupling")),
    ]


def error_cell(error: dict[str, Any] | None) -> str:
    """Write an error of a Kronecker product, with its own error where that is seen."""
    if error is None:
        return ""
    bar = f" ± {error['stderr']:.1g}" if (error["stderr"] or 0.0) > 5e-4 else ""
    return f"{error['value']:.3f}{bar}" + ("" if error["converged"] else ", not converged")


def _number(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.3g}"
