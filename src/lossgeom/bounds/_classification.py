"""Which examples a network classifies wrongly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from lossgeom.batches import Batch, tensors_of
from lossgeom.bounds._replayed import Replayed
from lossgeom.bounds.bound import Assumption
from lossgeom.bounds.posterior import Posterior
from lossgeom.linalg.probes import groups
from lossgeom.losses.likelihoods import Bernoulli, Softmax
from lossgeom.problem import Problem
from lossgeom.problem.batch_norm import lacks_running_statistics
from lossgeom.problem.examples import in_examples
from lossgeom.problem.model_facts import ModelFacts

COUNTED_AT_ONCE = 32  # networks whose outputs on a batch are compared with its labels
AT_ONCE = 2**24  # numbers of the parameter vectors that are held at a time
FEW_COPIES = 0.01  # of the examples, that need no mention
MIXED = (
    "the outputs of an example depend on the others in its batch, or on its place there, so there "
    "is no classifier of single examples to bound the error of. BatchNorm needs running statistics "
    "that are frozen in training, or a norm of single examples, such as LayerNorm, in its place"
)


def classes(problem: Problem) -> list[Tensor]:
    """The class of every example, batch by batch; -1 for those that the loss leaves out.

    Raises:
        ValueError: if the problem is not one of classifying single examples.
    """
    if problem.mode != "eval":
        raise ValueError("expected a problem in mode='eval', in which examples are classified")
    if lacks_running_statistics(problem.network.module):
        raise ValueError(MIXED)

    @torch.no_grad()
    def of(batch: Batch) -> Tensor:
        likelihood, targets = problem.criterion.likelihood, batch.targets
        outputs = problem.outputs(problem.theta, batch)
        if isinstance(likelihood, Softmax) and outputs.ndim == 2 and targets.ndim == 1:
            found = targets
        elif isinstance(likelihood, Bernoulli) and outputs.numel() == len(outputs):
            found = _binary(targets.reshape(-1), problem.criterion.name, batch.index)
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
        raise ValueError(MIXED)
    if not any(bool((part >= 0).any()) for part in found):
        raise ValueError("expected examples that the loss counts, got none")
    return found


def one_by_one(problem: Problem) -> Assumption:
    """That examples are classified by themselves, as far as the largest batch shows it.

    Its examples are tried alone, at a point near theta, where no weight of zero hides anything.

    Raises:
        ValueError: if outputs depend on other examples.
    """
    largest = max(problem.over_batches(lambda batch: batch), key=len)
    alone = replace(problem.evaluation, seed=None, facts=ModelFacts())  # whatever is known of it
    look, seen = partial(in_examples, alone, problem.theta, largest), len(largest) > 1
    try:
        look(mixed=True)
    except Exception:  # of whatever a model says to one example
        seen = False
    try:
        seen = seen and all(map(look().has_rows, tensors_of(largest.inputs)))
    except ValueError:
        raise ValueError(MIXED) from None
    statement = "the class of an example depends on no other example"
    return Assumption(statement, "checked" if seen else "declared")


def copies(problem: Problem, labels: Sequence[Tensor]) -> list[Assumption]:
    """That examples which others repeat, if there are more than a few, were drawn like that."""
    seen = set[int]()

    def of(batch: Batch) -> None:
        found = [t.to_dense() if t.layout != torch.strided else t for t in tensors_of(batch.raw)]
        counted = labels[batch.index].cpu() >= 0
        if any(not t.ndim or len(t) != len(batch) for t in found):  # nobody knows whose rows
            seen.update(hash((batch.index, i)) for i in range(int(counted.sum())))
            return
        rows = [t.cpu().reshape(len(batch), -1).contiguous() for t in found if t.numel()]
        numbers = torch.cat([row.view(torch.uint8) for row in rows], 1)[counted].numpy()
        seen.update(hash(row.tobytes()) for row in numbers)

    problem.over_batches(of)
    N = sum(int((part >= 0).sum()) for part in labels)
    statement = (
        f"{N - len(seen)} of {N} examples are copies of others: they were drawn like that, and not "
        "repeated"
    )
    return [Assumption(statement, "declared")] * (N - len(seen) > FEW_COPIES * N)


def _binary(targets: Tensor, loss: str, index: int) -> Tensor:
    low = -1 if loss == "SoftMarginLoss" else 0
    values = set(targets.tolist())
    if not values <= {low, 1}:
        raise ValueError(
            f"expected labels {low} and 1 for {loss}, got others in batch {index}: "
            f"{sorted(values)[:4]}"
        )
    return (targets > 0).long()


def sampled_errors(
    problem: Problem,
    labels: Sequence[Tensor],
    posterior: Posterior,
    samples: int,
    generator: torch.Generator,
) -> Float[Tensor, " samples"]:
    """The share of examples that each of some networks drawn from a posterior gets wrong.

    Cost: a forward pass over the data for each.
    """
    unwatched = problem.inside_transforms()
    outputs_at = Replayed(unwatched, unwatched.outputs, unwatched.outputs, samples)
    errors = []
    for size in groups(samples, max(AT_ONCE // len(posterior.mean), 1)):
        thetas = posterior.draw(size, generator).to(problem.theta)

        @torch.no_grad()
        def of(batch: Batch, thetas: Tensor = thetas) -> Tensor:
            outputs = (
                torch.stack([outputs_at(theta, batch) for theta in some])
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
