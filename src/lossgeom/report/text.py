"""A measurement as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lossgeom.messages.wording import in_columns
from lossgeom.recording.record_format import MATRICES
from lossgeom.report import wording
from lossgeom.report.layers import LEGEND, layers_table


def as_text(found: dict[str, Any]) -> str:
    """Write all numbers of a :func:`lossgeom.report.summary`, one to a line."""
    return "\n".join(_lines(found))


def _lines(found: dict[str, Any]) -> Iterator[str]:
    yield found["title"]
    yield wording.setting(found["problem"])
    matrix = None
    for quantity in found["quantities"]:
        if quantity["matrix"] != matrix:
            matrix = quantity["matrix"]
            yield from ("", MATRICES[matrix])
        yield _line(quantity)
        if matrix in found["eigenvalues"] and quantity["part"] == f"{matrix}_largest":
            yield _eigenvalues(found["eigenvalues"][matrix])
    if found["layers"]:
        yield from ("", "Structure of the layers")
        yield from (f"  {line}" for line in in_columns(layers_table(found["layers"])))
        yield from ("", *(f"  {line}" for line in in_columns(list(LEGEND.items()))))
    yield ""
    if found["stability"] is not None:
        yield wording.verdict(found["stability"])
        yield from wording.of_sgd(found["stability"])
    if any(quantity["status"] == "not_converged" for quantity in found["quantities"]):
        yield wording.NOT_CONVERGED
    messages = {
        quantity["message"]: None for quantity in found["quantities"] if quantity["message"]
    }
    yield from (f"There are values that are not finite: {message}." for message in messages)
    yield from (f"note: {note}" for note in wording.notes_of(found))
    yield (
        f"{found['products']} matrix-vector products; {found['seconds']:.3g} s of measuring, "
        "without loading, first checks and figures"
    )


def _line(quantity: dict[str, Any]) -> str:
    if quantity["status"] == "missing":
        return f"  {quantity['label']:<36}not measured yet"
    error = quantity["stderr"] or quantity["residual"]
    value = wording.rounded(quantity["value"], error)
    return f"  {quantity['label']:<36}{value:<14}{wording.error_of(quantity)}".rstrip()


def _eigenvalues(pairs: dict[str, list[Any]]) -> str:
    columns = (pairs["values"], pairs["residuals"], pairs["converged"])
    values = [
        wording.rounded(value, residual) + ("" if converged else "?")
        for value, residual, converged in zip(*columns, strict=True)
    ]
    return f"    {', '.join(values)}"
