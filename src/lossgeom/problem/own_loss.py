"""A look at a loss of the user's own: what it depends on, and whether it is a sum of terms."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lossgeom.batches import Batch, map_tensors
from lossgeom.losses.graphs import leaves_of
from lossgeom.problem.agreement import REORDERED, under
from lossgeom.problem.evaluation import Evaluation
from lossgeom.problem.isolation import seeded
from lossgeom.problem.recomputation import check_alone

BESIDE_OUTPUTS = (
    "the loss depends on the parameters other than through the outputs, as one does that reads "
    "what a hook stores: a Hessian has all of it, Gauss-Newton and Fisher matrices the part that "
    "goes through the outputs"
)


def look_at_loss(
    at: Evaluation, thetas: Sequence[Tensor], outputs: Tensor, batch: Batch, live: nn.Module
) -> None:
    """Look at what is not known yet of a loss.

    Args:
        at: with the loss.
        thetas: the leaves that the model was evaluated at.
        outputs: what it puts out for the batch, detached.
        batch: with rows that belong to those of the outputs.
        live: the user's model.

    Raises:
        ValueError: if it uses parameters of the user's model, or the sum is that of a mean and the
            count that of a sum.
    """
    seen = at.facts.first_look
    if seen.loss is None:
        _find_beside(at, thetas, outputs, batch, live)
    untold = seen.is_sum is None and len(batch) > 1
    if untold and seen.loss is not None and not seen.loss_beside_outputs:
        adds = is_sum_of_terms(at, outputs, batch)
        seen.is_sum = "cannot tell" if adds is None else adds


def _find_beside(
    at: Evaluation, thetas: Sequence[Tensor], outputs: Tensor, batch: Batch, live: nn.Module
) -> None:
    """Evaluate the loss twice, to find what it is a function of besides the outputs.

    Leaves of the parameters count from the first time on: a loss may empty what it reads.
    """
    try:
        with seeded(outputs.device, 0), torch.enable_grad():
            first, second = (
                leaves_of(at.terms(outputs.clone().requires_grad_(), batch)[0]) for _ in range(2)
            )
    except Exception:  # which is raised again where it is the loss that is measured
        return
    check_alone(first)
    seen = at.facts.first_look
    ours = {id(theta) for theta in thetas}
    beside = [leaf for key, leaf in second.items() if key in first and key not in ours]
    if beside and (own := names_among(live, beside)):
        raise ValueError(
            f"the loss uses parameters of your own model ({own}), not those that are measured in, "
            "so what depends on them would count as a constant. Compute it from the model that "
            "forward= is given, Problem(..., forward=lambda model, batch: ...), and return it with "
            "the outputs; ObjectiveHessian adds weight decay"
        )
    numbers = sum(leaf.numel() for leaf in beside)
    seen.loss = [f"parameters of the loss held fixed: {numbers} numbers"] * bool(beside)
    if ours & first.keys():  # such as in what a hook stores
        seen.loss.append(BESIDE_OUTPUTS)
        seen.loss_beside_outputs = True  # so that its halves are not those of the outputs


def names_among(live: nn.Module, leaves: list[Tensor]) -> str:
    """Names of the parameters of the user's model among some leaves."""
    names = [name for name, p in live.named_parameters() if any(p is leaf for leaf in leaves)]
    return ", ".join(names[:3]) + ", ..." * (len(names) > 3)


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
    loss, tolerance = at.criterion, under(at.autocast, REORDERED)
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
