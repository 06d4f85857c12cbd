"""What a record is told of the optimisers of a run that is watched."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from statistics import median
from typing import Any

from lossgeom.checks import check_at_least
from lossgeom.problem import Problem
from lossgeom.recording.forms import parse
from lossgeom.recording.record import Record
from lossgeom.recording.record_format import RecordError, Watched
from lossgeom.stability import OptimizerState

SAME_LOSS = 1e-3  # relative; what rounding on another machine may change
SAME_GRADIENT = 0.999  # a cosine from which on two gradients are those of one loss


def watched_of(record: Record) -> Watched | None:
    """What a record says of the optimisers of its run; nothing if it was not watched."""
    told = record.manifest.get("watched")
    found: Watched | None = None if told is None else parse(Watched, told, others=True)
    return found


def tell(record: Record, state: OptimizerState, full_batch: bool | None, **others: Any) -> None:
    """Write into the manifest what the optimisers and their threshold are, if it is anything new.

    Args:
        record: that is told.
        state: of the optimisers at a step.
        full_batch: what is known of that; ``None`` leaves what was known before.
        others: further fields.
    """
    known, threshold = watched_of(record) or Watched(()), state.threshold
    watched = replace(
        known,
        optimizers=state.kinds,
        formula=threshold.formula,
        matrix=threshold.matrix,
        status=threshold.status,
        maximized=any(group.get("maximize", False) for group in state.groups),
        instead=threshold.instead,
        full_batch=known.full_batch if full_batch is None else full_batch,
        **others,
    )
    if watched != known:
        record.update(watched=asdict(watched))


def check_settings(full_batch: object, first_step: object) -> None:
    """Raise for settings of a watch that do not do.

    Raises:
        TypeError, ValueError: if one does not.
    """
    if full_batch is not None and not isinstance(full_batch, bool):
        raise TypeError(f"expected full_batch to be True, False or None, got {full_batch!r}")
    if isinstance(first_step, bool) or not isinstance(first_step, int):
        raise TypeError(f"expected first_step to be the number of a step, got {first_step!r}")
    check_at_least(0, first_step=first_step)


def is_full_batch(cosines: Sequence[float]) -> bool | None:
    """Whether the optimisers were given the gradient of what is measured, in most of the steps.

    At the end of training, where a gradient is little more than rounding, it need not be.
    """
    known = [cosine for cosine in cosines if not math.isnan(cosine)]
    return median(known) > SAME_GRADIENT if known else None


def check_same_start(record: Record, step: int, problem: Problem) -> None:
    """Refuse a record that holds another loss where a run starts.

    Raises:
        RecordError: if it does.
    """
    if (step, "loss") not in record.measured:
        return
    there = dict(zip(*record.series("loss"), strict=True))[step]
    if math.isfinite(there) and not math.isclose(there, problem.loss(), rel_tol=SAME_LOSS):
        raise RecordError(
            f"{record.path} holds another run: at step {step} its loss was {there:.6g}, and now it "
            f"is {problem.loss():.6g}; nothing is measured. Choose another folder, or say "
            "first_step= where training goes on from a checkpoint"
        )
