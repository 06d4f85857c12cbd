"""Numbers that enter a theorem, measured or certified, and the bound that comes out of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lossgeom.bounds.bound import Assumption, Bound
from lossgeom.lipschitz import Bracket
from lossgeom.messages.checks import check_number
from lossgeom.problem import Problem
from lossgeom.problem.agreement import EXACT

Number = float | Tensor | Bracket
Terms = dict[str, float]
ZERO = Bracket.exactly(0.0)
ROUNDING = 1e-12  # of sums, maxima and products of a few numbers, relative to their magnitudes
PAPER = "MacDonald, Valmadre and Lucey (arXiv:2305.14683)"
COVERED = Assumption(
    "the examples were drawn independently of each other from the distribution, whose support the "
    "balls of radius delta round them cover with the probability stated",
    "declared",
)
CONVEX = Assumption("the support of the distribution is convex", "declared")
MEANINGS = {
    "delta": "the radius of balls round the examples that cover the support",
    "fit": "the largest distance of model and target at an example",
    "local variation": "how much the Jacobian differs between two points of a ball, at most",
}
FITTED = Assumption("at every example, the model is within the fit of the target", "declared")


def bracket(name: str, number: Number) -> Bracket:
    """A number from both sides, which are the same of one that was measured, in float64."""
    sides = (number.lower, number.upper) if isinstance(number, Bracket) else (number, number)
    lower, upper = (torch.as_tensor(side, dtype=torch.float64).detach() for side in sides)
    if lower.ndim > 1 or lower.numel() == 0:
        raise ValueError(
            f"expected {name} to be a number, or one for each example, got the shape "
            f"{tuple(lower.shape)}"
        )
    if (lower < 0).any() or (lower > upper).any():
        raise ValueError(
            f"expected {name} >= 0, and no lower side above the upper one, got {number}"
        )
    return Bracket(lower, upper)


def bounded(
    numbers: Mapping[str, Number], terms: Callable[..., Terms], *, epsilon: float, **facts: Any
) -> Bound:
    """The upper bound that is the sum of terms, each of which grows with the numbers.

    It is certified where every number is a bracket.
    """
    check_number("epsilon", epsilon, 0, 1, at_low=True)
    known = {name: bracket(name, number) for name, number in numbers.items()}
    lengths = {len(each.upper) for each in known.values() if each.upper.ndim}
    if len(lengths) > 1:
        raise ValueError(
            f"expected numbers of the same examples, got {' and '.join(map(str, sorted(lengths)))}"
        )
    parts = terms(*(each.upper for each in known.values()))
    least = terms(*(each.lower for each in known.values()))
    brackets = [isinstance(number, Bracket) for number in numbers.values()]
    return Bound(
        math.fsum(parts.values()) * (1 + ROUNDING),
        confidence=1 - epsilon,
        inputs={name: each.max[1] for name, each in known.items()},
        certified=all(brackets),
        least=math.fsum(least.values()) if any(brackets) else None,
        terms=parts,
        meanings=MEANINGS,
        **facts,
    )


def at_largest(**numbers: Tensor) -> Terms:
    """The terms of the example with the largest sum of them."""
    N = max(each.numel() for each in numbers.values())
    stacked = torch.stack([each.expand(N) for each in numbers.values()])
    top = stacked.sum(0).argmax()
    return dict(zip(numbers, stacked[:, top].tolist(), strict=True))


def checked(bound: Bound) -> Bound:
    """A bound on what was computed here, so that what it rests on is known."""
    known = (replace(each, status="checked") for each in bound.assumptions)
    return replace(bound, assumptions=tuple(known))


def check_convex(*, convex: bool) -> None:
    """Raise unless the caller declares that the support is convex."""
    if not convex:
        raise ValueError(
            "expected convex=True: this theorem needs a distribution with a convex support, and "
            "fails on others; lossgeom.bounds.generalisation does not need it"
        )


def mapped(number: Number, function: Callable[[Tensor], Tensor]) -> Number:
    """What a function that only grows, or only falls, makes of a number."""
    if not isinstance(number, Bracket):
        return function(torch.as_tensor(number, dtype=torch.float64))
    ends = function(number.lower), function(number.upper)
    return Bracket(torch.minimum(*ends), torch.maximum(*ends))


def rounded(problem: Problem, value: float | Tensor) -> Number:
    """What was measured in float64, up to rounding; how much float32 rounds is not known."""
    if problem.theta.dtype != torch.float64:
        return value
    exact = torch.as_tensor(value, dtype=torch.float64)
    return Bracket(exact * (1 - EXACT), exact * (1 + EXACT))
