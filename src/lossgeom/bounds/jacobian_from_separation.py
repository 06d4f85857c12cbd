"""How steep a model has to be at the examples, from how far apart its targets are."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from lossgeom.bounds._numbers import (
    CONVEX,
    COVERED,
    FITTED,
    MEANINGS,
    PAPER,
    ROUNDING,
    Number,
    bracket,
    check_convex,
)
from lossgeom.bounds.bound import Bound
from lossgeom.bounds.steepest_pair import steepest_pair
from lossgeom.lipschitz import Bracket
from lossgeom.messages.checks import check_number


def jacobian_from_separation(
    inputs: Float[Tensor, "N D"],
    targets: Float[Tensor, "N C"],
    local_variation: Number,
    *,
    fit: Number,
    epsilon: float,
    convex: bool,
) -> Bound:
    r"""Bound the largest Jacobian norm at the examples from below, by how well they are fitted.

    With probability :math:`1 - \epsilon` over N independent examples, for every Lipschitz f that is
    within :math:`\ell` of the target f* at all of them,

    .. math:: \max_i \|J f(x_i)\|_2 \ge
        \max_{i \ne j} \frac{\|f^*(x_i) - f^*(x_j)\|_2 - 2 \ell}{\|x_i - x_j\|_2}
        - \max_i V_{B(x_i, \delta)}(J f)

    if balls of radius :math:`\delta(N, \epsilon)` cover the support with that probability, and the
    support is convex. Proof: the values of f at two examples are at least so far apart as the
    targets less twice l; their quotient is at most the Lipschitz constant of f on the support, and
    :func:`lipschitz_on_support` bounds that by the Jacobians and variations. A cost :math:`c(f,
    f^*) \ge \alpha \|f - f^*\|_2^2` that is at most :math:`\alpha \ell^2` at every example says
    that the fit is l: see :func:`fit_of_cost`.

    Cost: that of :func:`steepest_pair`.

    Args:
        inputs: x, one flat row for each example.
        targets: f*(x), of the same outputs as f: label distributions, smoothed if labels are, for
            the softmax of a model.
        local_variation: of the Jacobian of f on the l2 balls of radius delta (N,), or its maximum.
        fit: l.
        epsilon: the probability that the examples do not cover the support; 0 where they do.
        convex: whether the support is convex, which you declare.

    Returns:
        A lower bound, certified where variation and fit are brackets, in outputs per unit of input.

    Raises:
        ValueError: as of :func:`lipschitz_on_support` and :func:`steepest_pair`, and where two
            examples have the same input, and targets too far apart for the fit.

    Source: MacDonald et al., arXiv:2305.14683, theorem 5.1 and equation 9; that the support has to
    be convex is added here.

    >>> import torch
    >>> x, smoothed = torch.tensor([[0.0], [3.0]]), torch.tensor([[0.75, 0.25], [0.25, 0.75]])
    >>> bound = jacobian_from_separation(x, smoothed, 0.0, fit=0.1, epsilon=0.05, convex=True)
    >>> round(bound.value, 4), bound.side
    (0.169, 'lower')
    """
    check_convex(convex=convex)
    check_number("epsilon", epsilon, 0, 1, at_low=True)
    ell, variation = bracket("fit", fit).max, bracket("local variation", local_variation).max
    slacks = dict.fromkeys(2 * side * (1 + 2 * ROUNDING) for side in ell)  # distances are rounded
    steep = [steepest_pair(inputs, targets, slack) for slack in slacks]
    pair = steep[-1]
    if pair.ratio == float("inf"):
        raise ValueError(
            f"expected a fit that two examples of the same input can have, got {ell[1]:g} for "
            f"examples {pair.first} and {pair.second}, whose targets are farther apart than twice "
            "that"
        )
    terms = {"steepest pair": pair.ratio, "variation": -variation[1]}
    brackets = [isinstance(number, Bracket) for number in (fit, local_variation)]
    return Bound(
        pair.ratio - variation[1] - ROUNDING * (pair.ratio + variation[1]),
        "the largest Jacobian norm of the model at the examples",
        1 - epsilon,
        {"fit": ell[1], "local variation": variation[1], "N": len(inputs)},
        (COVERED, CONVEX, FITTED),
        f"{PAPER}, theorem 5.1",
        trivial=0.0,
        side="lower",
        certified=all(brackets),
        least=steep[0].ratio - variation[0] if any(brackets) else None,
        terms=terms,
        meanings=MEANINGS,
    )
