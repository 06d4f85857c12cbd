"""The numbers of a measurement, from its record alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from lossgeom.recording.folder import MANIFEST_FILE
from lossgeom.recording.record import Record
from lossgeom.recording.record_format import RecordError

PROBLEM = ("loss", "mode", "parameters", "dtype", "device", "examples", "batches", "terms")
SETTING = ("geometry", "versions", "machine", "git_commit", "command", "created")


def summary(record: Record) -> dict[str, Any]:
    """All numbers of a measurement with their errors, and what they were measured on and with.

    A quantity that is not measured yet has the status ``"missing"``. Quantities of one ``part``
    come from the same products, whose number and seconds each of them has. Of a measurement that
    was stopped before it began, the ``problem`` is None.

    Raises:
        RecordError: if the record does not say what was measured, and holds measurements.
    """
    manifest = _described(record)
    rows = {row["metric"]: row for row in record.rows() if "metric" in row}
    planned = manifest.get("planned") or ()
    quantities = [_quantity(plan, rows.get(plan["metric"])) for plan in planned]
    parts = {quantity["part"]: quantity for quantity in quantities}.values()
    return {
        "title": manifest.get("title", record.path.resolve().name),
        "status": record.status,
        "problem": _problem(manifest),
        "quantities": quantities,
        "eigenvalues": {
            matrix: pairs
            for matrix in ("hessian", "gauss_newton")
            if (pairs := _eigenvalues(record, matrix)) is not None
        },
        "layers": [
            {**facts, **{name: array.tolist() for name, array in arrays.items() if array.ndim == 1}}
            for arrays, facts in layers_of(record)
        ],
        "products": sum(part["matvecs"] or 0 for part in parts),
        "seconds": round(math.fsum(part["seconds"] or 0.0 for part in parts), 3),
        "stability": _stability(manifest.get("stability"), rows.get("sharpness")),
        "config": record.config,
        **{key: manifest.get(key) for key in (*SETTING, "ended")},
    }


def layers_of(record: Record) -> Iterator[tuple[dict[str, Tensor], dict[str, Any]]]:
    """The structure of each layer that has been measured, as arrays and facts."""
    for plan in record.manifest.get("planned") or ():
        if plan["matrix"] == "layers" and (found := record.load_arrays(plan["part"])) is not None:
            yield found


def _described(record: Record) -> dict[str, Any]:
    """The manifest, checked to say what is measured once the measurement has begun."""
    needed = (*PROBLEM, "notes", "planned")
    known = {key for key, value in record.manifest.items() if value is not None or key == "terms"}
    absent = [key for key in needed if key not in known]
    if absent and (record.is_over or record.measured or len(absent) < len(needed)):
        raise RecordError(f"{record.path / MANIFEST_FILE} is damaged: {absent[0]} is missing")
    return record.manifest


def _problem(manifest: dict[str, Any]) -> dict[str, Any] | None:
    if manifest.get("planned") is None:
        return None
    notes = [*manifest.get("checkpoint_notes", ()), *manifest["notes"]]
    return {**{key: manifest[key] for key in PROBLEM}, "notes": notes}


def _quantity(plan: dict[str, str], row: dict[str, Any] | None) -> dict[str, Any]:
    measured = ("value", "stderr", "residual", "converged", "status", "matvecs", "seconds")
    found = {"status": "missing"} if row is None else row
    return {
        "name": plan["metric"],
        **{key: plan[key] for key in ("label", "matrix", "part")},
        **{key: found.get(key) for key in (*measured, "message")},
    }


def _eigenvalues(record: Record, matrix: str) -> dict[str, list[Any]] | None:
    found = record.load_arrays(f"{matrix}_largest")
    if found is None:
        return None
    return {name: tensor.tolist() for name, tensor in found[0].items()}


def _stability(
    stability: dict[str, float] | None, sharpness: dict[str, Any] | None
) -> dict[str, Any] | None:
    """The threshold of an optimiser, with the ratio of the sharpness to it, if it is known."""
    if stability is None or sharpness is None:
        return stability and {**stability, "ratio": None}
    return {**stability, "ratio": sharpness["value"] / float(stability["threshold"])}
