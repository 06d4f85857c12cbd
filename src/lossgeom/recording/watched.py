"""What a record is told of the optimisers of a run that is watched."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from statistics import median
from typing import Any

from torch.optim import Optimizer

from lossgeom.curvature.optimizers import left_out
from lossgeom.messages.checks import check_at_least
from lossgeom.problem import Problem
from lossgeom.recording.forms import parse
from lossgeom.recording.record import Record
from lossgeom.recording.record_format import Watched
from lossgeom.stability import OptimizerState

NOTHING = Watched(())
SAME_GRADIENT = 0.999  # a cosine from which on two gradients are those of one loss


def watched_of(record: Record) -> Watched | None:
    """What a record says of the optimisers of its run; nothing if it was not watched."""
    told = record.manifest.get("watched")
    found: Watched | None = None if told is None else parse(Watched, told, others=True)
    return found


def as_watched(state: OptimizerState, known: Watched = NOTHING, **others: Any) -> Watched:
    """What there is to say of optimisers at a step, beside what is known already."""
    threshold = state.threshold
    return replace(
        known,
        optimizers=state.kinds,
        formula=threshold.formula,
        matrix=threshold.matrix,
        status=threshold.status,
        maximized=any(group.get("maximize", False) for group in state.groups),
        instead=threshold.instead,
        unknown=state.unknown,
        **others,
    )


def tell(record: Record, state: OptimizerState, full_batch: bool | None, **others: Any) -> None:
    """Write into the manifest what the optimisers and their threshold are, if it is anything new.

    Args:
        record: that is told.
        state: of the optimisers at a step.
        full_batch: what is known of that; ``None`` leaves what was known before.
        others: further fields.
    """
    known = watched_of(record) or NOTHING
    full_batch = known.full_batch if full_batch is None else full_batch
    watched = as_watched(state, known, full_batch=full_batch, **others)
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


def of_others(problem: Problem, optimizers: Sequence[Optimizer]) -> str | None:
    """Say which parameters none of the optimisers updates, if there are any."""
    names = left_out(problem, optimizers)
    if not names:
        return None
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    kinds = ", ".join(type(each).__name__ for each in optimizers)
    return (
        f"{names[0]}{more} of the parameters are updated by none of the optimisers that are "
        f"watched ({kinds}), and what else moves them is part of the update that is measured; "
        "pass all optimisers as a list"
    )


def is_full_batch(cosines: Sequence[float]) -> bool | None:
    """Whether the optimisers were given the gradient of what is measured, in most of the steps.

    At the end of training, where a gradient is little more than rounding, it need not be.
    """
    known = [cosine for cosine in cosines if not math.isnan(cosine)]
    return median(known) > SAME_GRADIENT if known else None
