"""The classes that the targets of a problem name."""

from __future__ import annotations

import torch
from jaxtyping import Int64
from torch import Tensor

from lossgeom.batches import Batch
from lossgeom.lipschitz.certified.frozen_model import finite
from lossgeom.problem import Problem, checked_problem

TOLERANCE = 1e-3  # how far a sum of probabilities may be from 1


def classes(problem: Problem) -> Int64[Tensor, " N"]:
    """One class for each example, compared with what the model puts out for it.

    Raises:
        ValueError: for outputs that are not (N, C) with C > 1, or targets that are not classes.
        NonFiniteError: where an output is NaN or infinite.
    """
    evaluated = checked_problem(problem).in_mode("eval")

    @torch.no_grad()
    def of(batch: Batch) -> Tensor:
        return _checked(evaluated.outputs(evaluated.theta, batch), batch.targets)

    return torch.cat(evaluated.over_batches(of))


def _checked(outputs: Tensor, targets: object) -> Tensor:
    if outputs.ndim != 2 or outputs.shape[1] < 2:
        raise ValueError(
            f"expected the outputs of a classifier, (N, C) with C > 1, got {tuple(outputs.shape)}; "
            "logit_change is for other outputs"
        )
    B, C = finite(outputs).shape
    if isinstance(targets, Tensor) and targets.shape == outputs.shape:
        return _likeliest(targets)
    if not isinstance(targets, Tensor) or targets.is_floating_point() or targets.shape != (B,):
        got = (
            f"{tuple(targets.shape)} in {targets.dtype}" if isinstance(targets, Tensor) else "none"
        )
        raise ValueError(
            f"expected targets that are classes, integers ({B},), or probabilities of them "
            f"({B}, {C}), got {got}; logit_change needs no targets"
        )
    if targets.amin() < 0 or targets.amax() >= C:
        raise ValueError(
            f"expected classes from 0 to {C - 1}, got some from {targets.amin().item()} to "
            f"{targets.amax().item()}; leave out what has no class"
        )
    return targets.long()


def _likeliest(targets: Tensor) -> Tensor:
    """The likeliest class of each row; refuse numbers that are not probabilities."""
    sums = targets.double().sum(1)
    if targets.amin() < 0 or not torch.allclose(sums, torch.ones_like(sums), atol=TOLERANCE):
        raise ValueError(
            "expected targets that are classes or probabilities of them, got numbers that are "
            "negative or do not sum to 1; logit_change needs no targets"
        )
    return targets.argmax(1)
