"""What a record is told of the optimisers of a run that is watched."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from statistics import median

from lossgeom.recording.forms import parse
from lossgeom.recording.record import Record
from lossgeom.recording.record_format import Watched
from lossgeom.stability import OptimizerState

SAME_GRADIENT = 0.999  # a cosine from which on two gradients are those of one loss


def watched_of(record: Record) -> Watched | None:
    """What a record says of the optimisers of its run; nothing if it was not watched."""
    told = record.manifest.get("watched")
    found: Watched | None = None if told is None else parse(Watched, told, others=True)
    return found


def tell(record: Record, watched: Watched) -> None:
    """Write it into the manifest, if that holds anything else."""
    if watched_of(record) != watched:
        record.update(watched=asdict(watched))


def with_threshold(watched: Watched, state: OptimizerState) -> Watched:
    """The same with what the threshold of a step was."""
    threshold = state.threshold
    return replace(
        watched,
        optimizers=state.kinds,
        formula=threshold.formula,
        matrix=threshold.matrix,
        status=threshold.status,
        instead=threshold.instead,
    )


def is_full_batch(cosines: Sequence[float]) -> bool | None:
    """Whether the optimisers were given the gradient of what is measured, in most of the steps.

    At the end of training, where a gradient is little more than rounding, it need not be.
    """
    known = [cosine for cosine in cosines if not math.isnan(cosine)]
    return median(known) > SAME_GRADIENT if known else None
