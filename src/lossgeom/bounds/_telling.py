"""How a PAC-Bayes bound is told: in one line, what its numbers are, and what else to know."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.batches import Batch
from lossgeom.bounds._classification import wrong
from lossgeom.bounds._training import Epoch
from lossgeom.problem import Problem

MEANINGS = {
    "N": "the examples that are counted",
    "KL": "how far the posterior is from the prior, in nats",
    "lambda": "the variance of the prior in each weight, found in the search",
    "b": "more than the largest lambda that is tried",
    "p": "how finely: lambda = b exp(-j / p) for whole numbers j",
    "delta": "the probability that the bound fails, over the examples",
    "error of samples": "the share of the N examples that drawn networks get wrong",
    "samples": "the networks that were drawn for that",
    "delta'": "the probability that these mislead, over their draw",
}
UNUSED = (
    "the weights of the model have no part in this: the search starts from the prior, trained on "
    "its share of the data"
)
LOWER = (
    "to lower it, try more epochs while KL still falls, the basis 'recomputed', or a prior_share; "
    "of k tries, each takes delta / k and delta' / k"
)


@torch.no_grad()
def errors_at(
    problem: Problem, labels: Sequence[Tensor], thetas: Sequence[Float[Tensor, " P"]]
) -> list[float]:
    """The share of examples that the network with each of some parameters gets wrong."""
    unwatched = problem.inside_transforms()

    def of(batch: Batch) -> Tensor:
        outputs = torch.stack([unwatched.outputs(theta, batch) for theta in thetas])
        return wrong(outputs, labels[batch.index])

    counted = sum(int((part >= 0).sum()) for part in labels)
    found: list[float] = (torch.stack(problem.over_batches(of)).sum(0) / counted).tolist()
    return found


def percent(share: float) -> str:
    """A share, to three digits."""
    return f"{100 * share:.3g}%"


def told(
    value: float,
    of_drawn: float,
    at: Sequence[float],
    history: Sequence[Epoch],
    ceiling: float | None,
) -> dict[str, Any]:
    """What a bound is told with, beside its numbers.

    Args:
        value: the bound.
        of_drawn: the mean error of the networks drawn.
        at: the errors of the model itself and of the prior's mean; none where neither is used.
        history: of the search.
        ceiling: the b that lambda reached, if it did.
    """
    return {
        "headline": _headline(value, of_drawn, at, history),
        "meanings": MEANINGS,
        "notes": tuple(_notes(value, at, history, ceiling)),
    }


def _headline(value: float, of_drawn: float, at: Sequence[float], history: Sequence[Epoch]) -> str:
    """Both errors, or that there is no bound."""
    if diverged(history) and not value < 1:
        return f"no bound: the search diverged in epoch {len(history)}; lower its lr"
    itself = f" (of the trained network itself {percent(at[0])})" if at else ""
    return (
        f"training error of the drawn networks {percent(of_drawn)}{itself}; bound on their error "
        f"on new examples {percent(value)}"
    )


def _notes(
    value: float, at: Sequence[float], history: Sequence[Epoch], ceiling: float | None
) -> Iterator[str]:
    """What a reader should know beside the bound."""
    if math.isnan(value) or (diverged(history) and not value < 1):
        return
    if at and at[1] < at[0]:
        yield (
            f"the prior gets {percent(at[1])} of the examples wrong, and the trained network "
            f"{percent(at[0])}: are they swapped?"
        )
    if not at:
        yield UNUSED
    if diverged(history):
        yield f"the search diverged in epoch {len(history)}, and ended there; lower its lr"
    if ceiling is not None:
        yield (
            f"lambda is the largest that b = {ceiling:g} allows: a larger b may lower the bound, "
            "if it is not chosen by these examples"
        )
    if not value < 1:
        yield LOWER


def diverged(history: Sequence[Epoch]) -> bool:
    """Whether the search ended at what is not finite."""
    return bool(history) and math.isnan(history[-1].surrogate)
