"""How steep a model is on the whole support of a distribution, from what it is near a sample."""

from __future__ import annotations

from torch import Tensor

from lossgeom.bounds._numbers import (
    CONVEX,
    COVERED,
    PAPER,
    Number,
    Terms,
    at_largest,
    bounded,
    check_convex,
)
from lossgeom.bounds.bound import Bound


def lipschitz_on_support(
    jacobian_norms: Number, local_variation: Number, *, epsilon: float, convex: bool
) -> Bound:
    r"""Bound the Lipschitz constant of a model on the support of a distribution from a sample.

    With probability :math:`1 - \epsilon` over N independent examples, for every Lipschitz f,

    .. math:: \|f\|_{\mathrm{Lip}, P} \le
        \max_i \big( \|J f(x_i)\|_2 + V_{B(x_i, \delta)}(J f) \big)

    if balls of radius :math:`\delta(N, \epsilon)` cover the support with that probability, and the
    support is convex. Proof: the segment between two points of the support stays in it, so each of
    its points is in one of the balls, where the Jacobian is within V of that at the centre; the
    integral of the Jacobian along the segment is the difference of f. Without convexity it fails:
    a model that jumps between two parts of the support has small Jacobians on both.

    Args:
        jacobian_norms: spectral norms of the Jacobian at the examples (N,).
        local_variation: of the Jacobian on the l2 balls of radius delta round them (N,), or its
            maximum.
        epsilon: the probability that the examples do not cover the support; 0 where they do.
        convex: whether the support is convex, which you declare.

    Returns:
        An upper bound, certified where both are brackets, in outputs per unit of input.

    Raises:
        ValueError: without a convex support, for an epsilon outside of [0, 1), negative numbers, or
            numbers of different examples.

    Source: MacDonald et al., arXiv:2305.14683, theorem 4.3 and equation 8; that the support has to
    be convex is added here.

    >>> import torch
    >>> norms, variation = torch.tensor([1.0, 2.0]), torch.tensor([2.5, 0.5])
    >>> bound = lipschitz_on_support(norms, variation, epsilon=0.05, convex=True)
    >>> round(bound.value, 6), bound.certified
    (3.5, False)
    """
    check_convex(convex=convex)

    def terms(norms: Tensor, variation: Tensor) -> Terms:
        return at_largest(Jacobian=norms, variation=variation)

    return bounded(
        {"Jacobian norm": jacobian_norms, "local variation": local_variation},
        terms,
        epsilon=epsilon,
        quantity="the Lipschitz constant of the model on the support of the distribution",
        assumptions=(COVERED, CONVEX),
        source=f"{PAPER}, theorem 4.3",
        trivial=float("inf"),
    )
