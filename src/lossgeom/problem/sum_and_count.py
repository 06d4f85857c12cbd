"""Whether a loss of the user's own is a sum of terms and their number."""

from __future__ import annotations

import torch
from torch import Tensor

from lossgeom.batches import Batch, map_tensors
from lossgeom.problem.agreement import of_sums
from lossgeom.problem.evaluation import Evaluation
from lossgeom.problem.isolation import seeded


def is_sum_of_terms(at: Evaluation, outputs: Tensor, batch: Batch) -> bool | None:
    """Whether a batch has the sum and the count of its two halves together.

    A loss that compares examples with each other, or has a term for every batch, has not, and
    depends on how the data is split. What its halves do not tell, because they cannot be evaluated,
    is ``None``.

    Args:
        at: with a loss of a user's own.
        outputs: what the model puts out for the batch.
        batch: with rows that belong to those of the outputs.

    Raises:
        ValueError: if the sum is that of a mean, and the count that of a sum.
    """
    loss, tolerance = at.criterion, of_sums(at.autocast)
    rows = len(outputs) if outputs.ndim else 0
    half = rows // 4 * 2 or rows // 2  # even, where there are pairs
    if not half:
        return None
    try:
        with seeded(outputs.device, 0):
            if not at.terms(outputs, batch)[0]:  # such as at a perfect fit
                outputs = outputs + torch.arange(outputs.numel()).cos().to(outputs).view_as(outputs)
            total, count = _terms(at, outputs, batch, slice(None))
            parts = [_terms(at, outputs, batch, s) for s in (slice(half), slice(half, None))]
    except Exception:  # of whatever a loss says to half of a batch
        return None
    sums, counts = zip(*parts, strict=True)
    scale = tolerance * (abs(total) + sum(map(abs, sums)))
    adds = abs(total - sum(sums)) <= scale
    counts_add = abs(count - sum(counts)) <= tolerance * abs(count)
    if loss.average and counts_add and not adds and min(sums) - scale <= total <= max(sums) + scale:
        raise ValueError(
            f"expected the loss {loss.name!r} to return the sum of its terms and their number; it "
            f"returns a mean with a count of {count:g}: {total:.4g} for batch {batch.index}, "
            f"{sums[0]:.4g} and {sums[1]:.4g} for its halves, where a sum would add up. Return "
            "(terms.sum(), number of terms), as with reduction='sum'; or (mean, 1) for a loss of "
            "whole batches"
        )
    return adds and (counts_add or not loss.average)


def _terms(at: Evaluation, outputs: Tensor, batch: Batch, rows: slice) -> tuple[float, float]:
    """The terms of some rows of the outputs, with the tensors of the batch that have as many."""
    of_rows = len(outputs)
    raw = map_tensors(lambda t: t[rows] if t.ndim and len(t) == of_rows else t, batch.raw)
    total, count = at.terms(outputs[rows], batch.made_of(raw))
    return total.item(), count
