"""Which examples a network classifies wrongly."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from lossgeom.batches import Batch
from lossgeom.bounds.posterior import Posterior
from lossgeom.linalg import random_numbers
from lossgeom.linalg.probes import groups
from lossgeom.losses.likelihoods import Bernoulli, Softmax
from lossgeom.problem import Problem

COUNTED_AT_ONCE = 32  # networks whose outputs on a batch are compared with its labels
AT_ONCE = 2**24  # numbers of the parameter vectors that are held at a time


def classes(problem: Problem) -> list[Int64[Tensor, " B"]]:
    """The class of every example, batch by batch; -1 for those that the loss leaves out.

    Raises:
        ValueError: if the problem is not one of classifying single examples.
    """
    if problem.mode != "eval":
        raise ValueError("expected a problem in mode='eval', in which examples are classified")

    @torch.no_grad()
    def of(batch: Batch) -> Tensor:
        likelihood, targets = problem.criterion.likelihood, batch.targets
        outputs = problem.outputs(problem.theta, batch)
        if isinstance(likelihood, Softmax) and outputs.ndim == 2 and targets.ndim == 1:
            found = targets
        elif isinstance(likelihood, Bernoulli) and outputs.numel() == len(outputs):
            found = _binary(targets.reshape(-1), batch.index)
        else:
            raise ValueError(
                "expected one class for each example: 'cross_entropy' of outputs (B, C) with "
                "class indices, or nn.BCEWithLogitsLoss() or nn.SoftMarginLoss() of one output; "
                f"got {problem.criterion.name!r} of outputs {tuple(outputs.shape)} and targets "
                f"{tuple(targets.shape)} in {targets.dtype}"
            )
        counted = likelihood.weights(outputs, batch).reshape(-1) != 0
        return torch.where(counted, found, -1)

    found = problem.over_batches(of)
    if problem.evaluation.facts.first_look.mixed:
        raise ValueError(
            "the outputs of an example depend on the others in its batch, so there is no "
            "classifier of single examples to bound the error of"
        )
    return found


def _binary(targets: Tensor, index: int) -> Tensor:
    values = set(targets.tolist())
    if not (values <= {0, 1} or values <= {-1, 1}):
        raise ValueError(
            f"expected labels 0 and 1, or -1 and 1, got others in batch {index}: "
            f"{sorted(values)[:4]}"
        )
    return (targets > 0).long()


def sampled_errors(
    problem: Problem,
    labels: Sequence[Int64[Tensor, " B"]],
    posterior: Posterior,
    samples: int,
    seed: int,
) -> Float[Tensor, " samples"]:
    """The share of examples that each of some networks drawn from a posterior gets wrong.

    Cost: a forward pass over the data for each.
    """
    generator = random_numbers(seed)
    unwatched = problem.inside_transforms()
    errors = []
    for size in groups(samples, max(AT_ONCE // len(posterior.mean), 1)):
        thetas = posterior.draw(size, generator)

        @torch.no_grad()
        def of(batch: Batch, thetas: Tensor = thetas) -> Tensor:
            outputs = (
                torch.stack([unwatched.outputs(theta, batch) for theta in some])
                for some in torch.split(thetas, COUNTED_AT_ONCE)
            )
            return torch.cat([wrong(each, labels[batch.index]) for each in outputs])

        errors.append(torch.stack(unwatched.over_batches(of)).sum(0))
    return torch.cat(errors).double() / sum(int((part >= 0).sum()) for part in labels)


def wrong(outputs: Float[Tensor, "k B *C"], labels: Int64[Tensor, " B"]) -> Int64[Tensor, " k"]:
    """How many classes are not the one with the largest output; a tie or NaN counts as wrong."""
    logits = outputs.flatten(2) if outputs.ndim > 2 else outputs[..., None]
    if logits.shape[2] == 1:
        logits = torch.cat([-logits, logits], dim=2)
    index = labels.clamp(min=0)[None, :, None].expand(len(logits), -1, 1)
    others = logits.scatter(2, index, -math.inf).amax(2)
    right = logits.gather(2, index)[..., 0] > others
    return (~right & (labels >= 0)).sum(1)
