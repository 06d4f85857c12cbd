"""The geometry of a loss at one point, written to a record part by part."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from itertools import chain
from typing import Any

import torch

from lossgeom.batches import Batch
from lossgeom.estimate import Estimate
from lossgeom.metrics.geometry import Geometry, Part
from lossgeom.metrics.structure import Structure
from lossgeom.problem import NonFiniteError, Problem
from lossgeom.problem.passes import Fingerprint, digest, fingerprint
from lossgeom.recording.estimates import problem_facts, read_estimate, write_estimate
from lossgeom.recording.measuring import METRIC, STEP, check_ranks, notes_of_all
from lossgeom.recording.record import Record
from lossgeom.recording.record_format import MEASUREMENT, RecordError

SAME_LOSS = 1e-4  # relative; what rounding on another machine may change


def measure(
    problem: Problem,
    record: Record,
    geometry: Geometry | None = None,
    *,
    structure: Structure | None = None,
    around: Callable[[Part], AbstractContextManager[object]] = nullcontext,
) -> dict[str, Estimate]:
    """Measure the geometry of a loss into a record, of which ``lossgeom report`` makes a page.

    Each part is written when it is known. What the record holds already is not measured again, so a
    measurement that was stopped goes on where it was. A loss that is NaN or infinite is a result
    like any other.

    Args:
        problem: the loss and where to take it.
        record: where to, made with ``Record.create(folder, kind="measurement", resume=True)``. It
            is finished at the end: with the status ``"finished"``, or ``"diverged"`` where a number
            is NaN or infinite.
        geometry: what to measure; ``Geometry()`` by default.
        structure: of the layers, too.
        around: a context that each part is measured in, such as one that shows progress.

    Returns:
        All estimates by name, also those that were there before.

    Raises:
        RecordError: if the record is not of this kind, or holds a measurement of another problem.
        ValueError: if the record is of other processes than the problem.

    >>> import tempfile
    >>> from torch import nn
    >>> problem = Problem(nn.Linear(2, 1), "squared_error", [(torch.ones(3, 2), torch.ones(3, 1))])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     found = measure(problem, Record.create(folder, kind="measurement"))
    >>> round(found["sharpness"].value, 4)
    3.0
    """
    if record.manifest["kind"] != MEASUREMENT:
        raise RecordError(
            f"{record.path} is a {record.manifest['kind']}; expected a record that was made with "
            f"Record.create(folder, kind={MEASUREMENT!r})"
        )
    geometry = geometry or Geometry()
    wanted = (geometry,) if structure is None else (geometry, structure)
    check_ranks(record, problem)
    return problem.ranks.together(lambda: _measured(problem, record, wanted, around), level=STEP)


def _measured(
    problem: Problem,
    record: Record,
    wanted: Sequence[Geometry | Structure],
    around: Callable[[Part], AbstractContextManager[object]],
) -> dict[str, Estimate]:
    _describe(problem, record, wanted)
    ended = record.manifest.get("ended")
    for part in _parts(wanted, problem):
        if all((0, name) in record.measured for name in part.labels):
            continue
        with around(part):
            started = time.perf_counter()
            found = problem.ranks.together(part.measure, level=METRIC)
            seconds = time.perf_counter() - started
        if found.arrays:
            record.save_arrays(part.name, found.arrays, **found.facts)
        for name, estimate in found.estimates.items():
            write_estimate(record, 0, name, estimate, seconds, found.message)
        ended = None
    notes = notes_of_all(problem)
    if ended is None:
        record.update(notes=notes)
    elif new := [note for note in notes if note not in record.manifest["notes"]]:
        record.update(notes=[*record.manifest["notes"], *new])
    estimates = {row["metric"]: read_estimate(row) for row in record.rows() if "metric" in row}
    finite = all(math.isfinite(estimate.value) for estimate in estimates.values())
    record.finish("finished" if finite else "diverged", ended=ended)
    return estimates


def _parts(wanted: Sequence[Geometry | Structure], problem: Problem) -> Iterator[Part]:
    return chain.from_iterable(each.parts(problem) for each in wanted)


def _describe(problem: Problem, record: Record, wanted: Sequence[Geometry | Structure]) -> None:
    """Write down what is measured, which must be what was measured before."""
    facts = {**_facts(problem), "geometry": asdict(wanted[0])}
    if record.measured:
        _check_same(record, {key: record.manifest.get(key) for key in facts}, facts)
        facts = {}
    else:
        facts["notes"] = problem.notes
    plan = [
        {"part": part.name, "matrix": part.matrix, "metric": name, "label": label}
        for part in _parts(wanted, problem)
        for name, label in part.labels.items()
    ]
    record.update(**facts, planned=plan)


WORDS = {"weights": "hash of the weights", "data": "hash of the data", "loss_value": "loss"}


def _check_same(record: Record, there: dict[str, Any], now: dict[str, Any]) -> None:
    differ = [key for key in now if key != "loss_value" and there[key] != now[key]]
    if not (differ or _is_close(there["loss_value"], now["loss_value"])):
        differ = ["loss_value"]
    if differ:
        words = "; ".join(f"{WORDS.get(k, k)}: there {there[k]}, now {now[k]}" for k in differ)
        raise RecordError(
            f"{record.path} holds a measurement of something else ({words}); choose another "
            "folder. If model and data are meant to be the same, let the functions that make them "
            "fix their seeds"
        )


def _is_close(a: float | None, b: float | None) -> bool:
    if a is None or b is None:
        return a is b
    return math.isclose(a, b, rel_tol=SAME_LOSS, abs_tol=1e-30)


def _facts(problem: Problem) -> dict[str, Any]:
    """Facts that tell one problem from another, from one pass over the data."""
    found: list[tuple[int, Fingerprint, float]] = []

    @torch.no_grad()
    def seen(batch: Batch) -> tuple[float, float]:
        try:
            total, count = problem.terms(problem.outputs(problem.theta, batch), batch)
            value = total.item()
        except NonFiniteError:
            value, count = math.nan, 1.0
        found.append((len(batch), fingerprint(batch.raw), count))
        return value, count

    loss = problem.mean(seen)
    sizes, prints, counts = zip(*problem.rows(lambda _: found), strict=True)
    finite = math.isfinite(loss)
    return {
        **problem_facts(problem),
        "device": problem.theta.device.type,
        "examples": sum(sizes),
        "batches": len(sizes),
        "terms": math.fsum(counts) if finite else None,
        "loss_value": loss if finite else None,
        "weights": _hash_of_weights(problem),
        "data": _hash(prints),
    }


def _hash_of_weights(problem: Problem) -> str:
    """A hash of the parameters that are measured in, of those held fixed, and of buffers."""
    tensors = {"theta": problem.theta, **problem.network.module.state_dict()}
    names = problem.network.names
    return _hash((names, [(n, digest(t)) for n, t in tensors.items() if torch.is_tensor(t)]))


def _hash(thing: object) -> str:
    return hashlib.sha256(repr(thing).encode()).hexdigest()[:16]
