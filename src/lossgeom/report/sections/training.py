"""What was trained, by which optimisers, and what their threshold of stability is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lossgeom.recording.record import Record
from lossgeom.recording.watched import watched_of
from lossgeom.report._section import Section
from lossgeom.report._source import Source

MATRICES = {
    "Hessian": "the Hessian of the loss",
    "ObjectiveHessian": "the Hessian of the loss with weight decay",
    "PreconditionedHessian": "the preconditioned Hessian",
}
FULL_BATCH = {True: "full batches", False: "mini-batches"}


def training(source: Source, figures: Path) -> Section | None:  # noqa: ARG001
    """Facts that a watch or a tracker has written, each once where all runs agree."""
    if source.manifest["kind"] != "run":
        return None
    facts = {name: facts_of(record) for name, record in source.records.items()}
    keys = dict.fromkeys(key for of_run in facts.values() for key in of_run)
    if not keys:
        return None
    together = {key: _together({name: of[key] for name, of in facts.items() if key in of},
                               len(facts)) for key in keys}  # fmt: skip
    return Section("Training", "training.html", {"facts": together})


def facts_of(record: Record) -> dict[str, str]:
    """What one record says, in words."""
    manifest, watched = record.manifest, watched_of(record)
    facts: dict[str, str | None] = {}
    if watched is not None:
        facts["optimiser"] = " and ".join(watched.optimizers)
        facts["learning rate"] = _rates(record)
        facts["threshold"] = _threshold(record)
        facts["steps"] = None if watched.full_batch is None else FULL_BATCH[watched.full_batch]
    facts["loss"] = manifest.get("loss")
    facts["parameters"] = _count(manifest.get("parameters"))
    facts["mode"] = manifest.get("mode")
    facts["numbers"] = str(manifest.get("dtype") or "").removeprefix("torch.")
    return {key: value for key, value in facts.items() if value}


def _count(number: Any) -> str | None:
    return f"{number:,}" if isinstance(number, int) else None


def _rates(record: Record) -> str | None:
    """The learning rate; of one that changes, the first, the last and the extremes."""
    rows = sorted((row for row in record.rows() if "metric" in row), key=lambda row: row["step"])
    known = [row.get("lr") for row in rows]
    rates = [float(lr) for lr in known if lr is not None]
    if not rates:
        return "several, or none that is known" if known else None
    if len(set(rates)) == 1:
        return f"{rates[0]:.4g}"
    ends = f"{rates[0]:.4g} at first, {rates[-1]:.4g} at last"
    low, high = min(rates), max(rates)
    beyond = {low, high} - {rates[0], rates[-1]}
    return f"{ends}; from {low:.4g} to {high:.4g}" if beyond else ends


def _threshold(record: Record) -> str | None:
    """The formula of the threshold, and what is compared with it."""
    watched = watched_of(record)
    if watched is None or watched.formula is None:
        return None
    if watched.status == "unknown":
        return watched.formula
    of = MATRICES.get(watched.matrix or "", watched.matrix)
    nominal = "; nominal, as if the preconditioner stood still"
    said = f"{watched.formula}, for the largest eigenvalue of {of}"
    return said + (nominal if watched.status == "nominal" else "")


def _together(values: dict[str, str], runs: int) -> str:
    """One value where all runs agree, and otherwise one for each run."""
    if len(set(values.values())) == 1 and len(values) == runs:
        return next(iter(values.values()))
    return "; ".join(f"{name}: {value}" for name, value in values.items())
