"""How far a model is from its target on new inputs, from what it is near a sample."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from lossgeom.bounds._numbers import (
    COVERED,
    FITTED,
    PAPER,
    ZERO,
    Number,
    Terms,
    at_largest,
    bounded,
    bracket,
)
from lossgeom.bounds.bound import Assumption, Bound
from lossgeom.lipschitz import Bracket

Form = Literal["ambient", "latent"]
Term = tuple[str, Number, int]  # a number, its name, and the order in delta of what it adds
QUANTITY = "the mean distance of the model from the target on new inputs"
FORMS = {
    "ambient": f"{PAPER}, theorem 6.1, as stated, in the space of inputs",
    "latent": f"{PAPER}, theorem 6.1, applied to model and target after the generator, in the "
    "space of its inputs",
}
DERIVED = f"derived from {PAPER}, theorem 6.1, "
WORST = (
    "the terms are of the ball where their sum is largest; of the numbers below, each is the "
    "largest on any ball, so that their products may be more"
)
TARGET = Assumption("what is said of the target is true of it on all balls", "declared")


def generalisation(
    delta: float | Bracket,
    target_lipschitz: Number,
    jacobian_norms: Number,
    local_variation: Number,
    *,
    fit: Number = ZERO,
    epsilon: float,
    form: Form = "ambient",
    trivial: float = math.inf,
) -> Bound:
    r"""Bound the mean distance of a model from its target on new inputs, by theorem 6.1.

    With probability :math:`1 - \epsilon` over N independent examples, at which the model f is
    within :math:`\ell` of the target f*, for every f,

    .. math:: E_x \|f(x) - f^*(x)\|_2 \le \ell + \delta \Big( \|f^*\|_{\mathrm{Lip}, P}
        + \max_i \big( \|J f(x_i)\|_2 + V_{B(x_i, \delta)}(J f) \big) \Big)

    if balls of radius :math:`\delta(N, \epsilon)` cover the support with that probability. Proof: a
    new x is in the ball of some :math:`x_i`, and going there and back again costs f at most delta
    times its largest Jacobian on the ball, which is within V of that at the centre, and f* delta
    times its Lipschitz constant. So the distance is bounded at every x, not in the mean only, and
    the support need not be convex, because a ball is.

    In the latent form, inputs are :math:`x = g(u)`, and everything is of f(g(u)) and f*(g(u)) in u:
    the Lipschitz constant of the generator g plays no part, and balls have few dimensions. In the
    ambient form delta is that of u times the Lipschitz constant of g.

    Args:
        delta: radius of the balls. A number is taken as known; see ``fit`` for a bracket.
        target_lipschitz: the Lipschitz constant of the target, on the support at least.
        jacobian_norms: spectral norms of the Jacobian of the model at the examples (N,).
        local_variation: of it on the balls (N,), or its maximum.
        fit: l, the largest distance of model and target at the examples; 0 by default. As any of
            these, a number if it was measured, and a bracket if it is certified.
        epsilon: the probability that the examples do not cover the support; 0 where they do.
        form: ``"ambient"`` or ``"latent"``, for the name.
        trivial: what the distance is at most without the theorem, such as the range of the target.

    Returns:
        An upper bound, certified where everything is a bracket, in units of the outputs.

    Raises:
        ValueError: for an epsilon outside of [0, 1), negative numbers, or numbers of different
            examples.

    Source: MacDonald et al., arXiv:2305.14683, theorem 6.1 and equation 10; the fit and the latent
    form are derived here.

    >>> from math import pi
    >>> delta = 0.019807  # of 1000 points on the unit interval, f = f* = sin(2 pi x)
    >>> bound = generalisation(delta, 2 * pi, 2 * pi, 2 * delta * 4 * pi**2, epsilon=0.05)
    >>> round(bound.value, 5)
    0.27988
    """
    terms = {
        "target": ("Lipschitz constant of the target", target_lipschitz, 1),
        "Jacobian": ("Jacobian norm", jacobian_norms, 1),
        "variation": ("local variation", local_variation, 1),
    }
    return _at_most(FORMS[form], terms, delta, fit, epsilon, trivial)


def local_lipschitz(
    delta: float | Bracket,
    lipschitz: Number,
    target_lipschitz: Number,
    *,
    fit: Number = ZERO,
    epsilon: float,
    trivial: float = math.inf,
) -> Bound:
    r"""Bound the mean distance of a model from its target by Lipschitz constants on balls.

    .. math:: E_x \|f(x) - f^*(x)\|_2 \le \max_i \Big( \ell_i + \delta \big( L_i(f) + L_i(f^*) \big)
        \Big)

    with probability :math:`1 - \epsilon`, where :math:`L_i` is a Lipschitz constant on the ball of
    radius delta round example i, such as :func:`lossgeom.lipschitz_local` certifies. Proof: as of
    :func:`generalisation`, with the largest Jacobian on the ball itself in place of what is known
    of it from its centre. It is never above that bound if L is at most the norm at the centre and
    the local variation together, and L of the target at most its Lipschitz constant.

    Args:
        delta: radius of the balls.
        lipschitz: Lipschitz constants of the model on the balls (N,), or their maximum.
        target_lipschitz: those of the target.
        fit: distances of model and target at the examples (N,), or the largest.
        epsilon: the probability that the examples do not cover the support; 0 where they do.
        trivial: what the distance is at most without the theorem.

    Raises:
        ValueError: as of :func:`generalisation`.

    Source: derived here, in the way of MacDonald et al., arXiv:2305.14683, theorem 6.1.

    >>> import torch
    >>> steep = Bracket(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0]))
    >>> bound = local_lipschitz(0.1, steep, Bracket.exactly(1.0), epsilon=0.05)
    >>> round(bound.value, 6), round(bound.least, 6), bound.certified
    (0.4, 0.3, True)
    """
    terms = {
        "target": ("local Lipschitz constant of the target", target_lipschitz, 1),
        "model": ("local Lipschitz constant", lipschitz, 1),
    }
    source = f"{DERIVED}with Lipschitz constants on the balls"
    return _at_most(source, terms, delta, fit, epsilon, trivial)


def difference(
    delta: float | Bracket,
    jacobian_norms: Number,
    local_variation: Number,
    *,
    fit: Number = ZERO,
    epsilon: float,
    trivial: float = math.inf,
) -> Bound:
    r"""Bound the mean distance of a model from its target by the Jacobian of their difference.

    .. math:: E_x \|d(x)\|_2 \le \max_i \Big( \ell_i + \delta \big( \|J d(x_i)\|_2
        + V_{B(x_i, \delta)}(J d) \big) \Big), \quad d = f - f^*,

    with probability :math:`1 - \epsilon`, where :math:`V(J d) \le V(J f) + V(J f^*)`. Proof: as of
    :func:`generalisation`, for d in place of f and 0 in place of f*. Where the model has learned
    the derivatives of the target, too, :math:`\|J d\|` is small, and as V falls in proportion to
    delta the bound falls with its square.

    Args:
        delta: radius of the balls.
        jacobian_norms: spectral norms of the Jacobian of the difference at the examples (N,).
        local_variation: of that on the balls (N,), or the sum of those of model and target.
        fit: distances of model and target at the examples (N,), or the largest.
        epsilon: the probability that the examples do not cover the support; 0 where they do.
        trivial: what the distance is at most without the theorem.

    Raises:
        ValueError: as of :func:`generalisation`.

    Source: derived here, in the way of MacDonald et al., arXiv:2305.14683, theorem 6.1.

    >>> round(difference(0.1, 0.01, 0.5, fit=1e-3, epsilon=0.05).value, 6)
    0.052
    """
    terms = {
        "Jacobian": ("Jacobian norm of the difference", jacobian_norms, 1),
        "variation": ("local variation", local_variation, 1),
    }
    source = f"{DERIVED}for the difference of model and target"
    return _at_most(source, terms, delta, fit, epsilon, trivial)


def local_difference(
    delta: float | Bracket,
    lipschitz: Number,
    *,
    fit: Number = ZERO,
    epsilon: float,
    trivial: float = math.inf,
) -> Bound:
    r"""Bound the mean distance of a model from its target by what their difference is on balls.

    .. math:: E_x \|d(x)\|_2 \le \max_i \big( \ell_i + \delta L_i(d) \big), \quad d = f - f^*,

    with probability :math:`1 - \epsilon`: :func:`local_lipschitz` for d in place of f and 0 in
    place of f*. It is never above that bound, as :math:`L_i(d) \le L_i(f) + L_i(f^*)`.

    Args:
        delta: radius of the balls.
        lipschitz: Lipschitz constants of the difference on the balls (N,), or their maximum.
        fit: distances of model and target at the examples (N,), or the largest.
        epsilon: the probability that the examples do not cover the support; 0 where they do.
        trivial: what the distance is at most without the theorem.

    Raises:
        ValueError: as of :func:`generalisation`.

    Source: derived here, in the way of MacDonald et al., arXiv:2305.14683, theorem 6.1.

    >>> round(local_difference(0.1, 0.5, fit=1e-3, epsilon=0.05).value, 6)
    0.051
    """
    terms = {"difference": ("local Lipschitz constant of the difference", lipschitz, 1)}
    source = f"{DERIVED}for the difference, with Lipschitz constants on the balls"
    return _at_most(source, terms, delta, fit, epsilon, trivial)


def smooth_difference(
    delta: float | Bracket,
    jacobian_norms: Number,
    jacobian_lipschitz: Number,
    *,
    fit: Number = ZERO,
    epsilon: float,
    trivial: float = math.inf,
) -> Bound:
    r"""Bound the mean distance of a model from its target by second derivatives.

    .. math:: E_x \|d(x)\|_2 \le \max_i \Big( \ell_i + \delta \|J d(x_i)\|_2
        + \tfrac12 \delta^2 \, \mathrm{Lip}_{B(x_i, \delta)}(J d) \Big), \quad d = f - f^*,

    with probability :math:`1 - \epsilon`, where :math:`\mathrm{Lip}(J d) \le \mathrm{Lip}(J f) +
    \mathrm{Lip}(J f^*)`. Proof: at distance t from the centre of a ball the Jacobian is within t
    Lip(J) of that at the centre; the integral from 0 to delta has the factor 1/2. The local
    variation that is known from the same constant is 2 delta Lip(J), over two points at opposite
    ends of the ball: its term in :func:`difference` is four times the one here.

    Args:
        delta: radius of the balls.
        jacobian_norms: spectral norms of the Jacobian of the difference at the examples (N,).
        jacobian_lipschitz: Lipschitz constants of that Jacobian on the balls (N,), such as
            :func:`lossgeom.jacobian_lipschitz` certifies, or the sum of those of both.
        fit: distances of model and target at the examples (N,), or the largest.
        epsilon: the probability that the examples do not cover the support; 0 where they do.
        trivial: what the distance is at most without the theorem.

    Raises:
        ValueError: as of :func:`generalisation`.

    Source: derived here, in the way of MacDonald et al., arXiv:2305.14683, theorem 6.1.

    >>> round(smooth_difference(0.1, 0.01, 2.5, fit=1e-3, epsilon=0.05).value, 6)
    0.0145
    """
    terms = {
        "Jacobian": ("Jacobian norm of the difference", jacobian_norms, 1),
        "variation": ("Lipschitz constant of the Jacobian", jacobian_lipschitz, 2),
    }
    source = f"{DERIVED}for the difference of model and target, with second derivatives"
    return _at_most(source, terms, delta, fit, epsilon, trivial)


def _at_most(
    source: str,
    terms: Mapping[str, Term],
    delta: float | Bracket,
    fit: Number,
    epsilon: float,
    trivial: float,
) -> Bound:
    """The fit, and what the distance may grow by from the centre of a ball to its edge."""
    radius = delta if isinstance(delta, Bracket) else Bracket.exactly(delta)
    numbers = {name: number for name, number, _ in terms.values()}

    def summands(r: Tensor, ell: Tensor, *others: Tensor) -> Terms:
        grown = zip(terms.items(), others, strict=True)
        parts = {part: r**order / order * each for (part, (_, _, order)), each in grown}
        return at_largest(fit=ell, **parts)

    several = any(bracket(*named).upper.ndim for named in numbers.items())
    return bounded(
        {"delta": radius, "fit": fit, **numbers}, summands, epsilon=epsilon, quantity=QUANTITY,
        assumptions=(COVERED, TARGET, FITTED), source=source, trivial=trivial,
        notes=(WORST,) if several else (),
    )  # fmt: skip
