"""How far a model is from its target, and how far attacks move it, from gradients at a sample."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.bounds._numbers import FITTED, ZERO, Number, Terms, at_largest, bounded
from lossgeom.bounds.bound import Assumption, Bound
from lossgeom.lipschitz import Bracket
from lossgeom.messages.checks import check_number
from lossgeom.smoothness.sobolev import seminorm

SOURCE = "derived here; Ma and Ying (arXiv:2105.13462) have theorems of this kind"
IN_CELLS = Assumption(
    "new inputs are within the radius of the example that is nearest to them", "declared"
)
SMOOTH = Assumption("what is said of the Jacobian is true of it on balls round them", "declared")
TARGET = Assumption("the target has this Lipschitz constant on the support", "declared")
Cells = dict[str, Tensor]  # what adds up to the bound in each cell
WHOLE = 1e-6  # rounding of masses that sum to 1


def cell_generalisation(
    masses: Number | None,
    radius: Number,
    gradients: Number,
    jacobian_lipschitz: Number,
    target_lipschitz: Number,
    *,
    fit: Number = ZERO,
    order: int | None = None,
    deviation: float = 0.0,
    epsilon: float = 0.0,
    trivial: float = math.inf,
) -> Bound:
    r"""Bound the mean distance of a model from its target by gradients at the examples.

    .. math:: E \|f(x) - f^*(x)\| \le \sum_i p_i \Big( \ell_i + r \|J(x_i)\| + \frac{r^2}2 \beta_i
        \Big) + r \, \mathrm{Lip}(f^*)

    with the Voronoi cells of the examples, :math:`p_i` the mass of new inputs that are nearest to
    example i, r the largest distance from it, and :math:`\beta_i` the Lipschitz constant of the
    Jacobian on the ball of that radius. Proof: f changes by at most :math:`\|J(x_i)\| d + \beta_i
    d^2 / 2` over the distance d from :math:`x_i`, on a segment that stays in the ball.

    With an ``order`` k, the gradients enter by their moment, which flatness bounds:

    .. math:: \sum_i p_i \|J(x_i)\| \le \Big( \frac1n \sum_i (n p_i)^q \Big)^{1/q}
        \Big( \frac1n \sum_i \|J(x_i)\|^{2k} \Big)^{1/2k}, \qquad \frac1q + \frac1{2k} = 1,

    by Hoelder's inequality: the larger k, the more uneven cells may be. Without masses, any are
    allowed for: the largest example, or :math:`n^{1/2k}` in place of the first factor.

    Args:
        masses: p_i (n,), which sum to 1; ``None`` where they are not known.
        radius: r.
        gradients: spectral norms of the Jacobian of the model at the examples (n,), or, with an
            order, their moment, or what it is at most.
        jacobian_lipschitz: beta_i (n,), or the largest.
        target_lipschitz: of the target on the support, or on the balls (n,).
        fit: l_i, the distance from the target at example i (n,), or the largest.
        order: k.
        deviation: how far a mean with the true masses may be above that with p_i, as a share of the
            range of what it is a mean of; for masses that were counted.
        epsilon: the probability that radius and masses are wrong.
        trivial: what the distance is at most without the theorem.

    Returns:
        An upper bound, certified where everything is a bracket, in units of the outputs.

    Raises:
        ValueError: for negative numbers, numbers of different examples, or masses that do not sum
            to 1.

    Source: derived here. Ma and Ying, arXiv:2105.13462, have a theorem of this kind.

    >>> from math import pi
    >>> tenth = torch.full((10,), 0.1)  # x = (i + .5) / 10, f = .3 / (10 pi) sin(10 pi (x - .05))
    >>> bound = cell_generalisation(tenth, 0.05, 0.3, 3 * pi, 0.0)
    >>> round(bound.value, 6), {name: round(term, 4) for name, term in bound.terms.items()}
    (0.026781, {'fit': 0.0, 'target': 0.0, 'Jacobian': 0.015, 'variation': 0.0118})
    """
    numbers = {
        "radius": radius,
        "Jacobian norm": gradients,
        "Lipschitz constant of the Jacobian": jacobian_lipschitz,
        "Lipschitz constant of the target": target_lipschitz,
        "fit": fit,
    }

    def within(r: Tensor, g: Tensor, beta: Tensor, target: Tensor, fit: Tensor) -> Cells:
        return {"fit": fit, "target": r * target, "Jacobian": r * g, "variation": r**2 / 2 * beta}

    return _over_cells(
        masses, numbers, within, order, deviation, epsilon=epsilon, trivial=trivial,
        quantity="the mean distance of the model from the target on new inputs",
        assumptions=(IN_CELLS, SMOOTH, TARGET, FITTED),
    )  # fmt: skip


def cell_robustness(
    masses: Number | None,
    radius: Number,
    gradients: Number,
    jacobian_lipschitz: Number,
    attack: float,
    *,
    order: int | None = None,
    deviation: float = 0.0,
    epsilon: float = 0.0,
    trivial: float = math.inf,
) -> Bound:
    r"""Bound how far attacks on new inputs move the outputs, by gradients at the examples.

    .. math:: E \max_{\|e\| \le \rho} \|f(x + e) - f(x)\| \le \rho \sum_i p_i \Big( \|J(x_i)\|
        + \beta_i \big( r + \tfrac\rho2 \big) \Big)

    in the notation of :func:`cell_generalisation`, with :math:`\beta_i` on the ball of radius
    :math:`r + \rho`. Proof: at distance t of x, which is within r of :math:`x_i`, the Jacobian has
    a norm of at most :math:`\|J(x_i)\| + \beta_i (r + t)`; the integral to rho is that. It is less
    than :math:`2 (r + \rho) \|J(x_i)\| + \beta_i (r + \rho)^2`, which the way to
    :math:`x_i` and back gives, and goes to 0 with rho.

    Args:
        masses: as there, and all others.
        radius: r.
        gradients: as there.
        jacobian_lipschitz: beta_i on larger balls.
        attack: rho, the size of the attack in l2.
        order: as there.
        deviation: as there.
        epsilon: as there.
        trivial: what the change is at most without the theorem.

    Raises:
        ValueError: as there, and unless the attack is positive.

    Source: derived here. Ma and Ying, arXiv:2105.13462, have a theorem of this kind.

    >>> half = torch.tensor([0.5, 0.5])
    >>> round(cell_robustness(half, 0.1, torch.tensor([1.0, 3.0]), 2.0, attack=0.2).value, 6)
    0.48
    """
    check_number("attack", attack, 0)

    numbers = {
        "radius": radius,
        "Jacobian norm": gradients,
        "Lipschitz constant of the Jacobian": jacobian_lipschitz,
        "attack": Bracket.exactly(attack),
    }

    def within(r: Tensor, g: Tensor, beta: Tensor, rho: Tensor) -> Cells:
        return {"Jacobian": rho * g, "variation": rho * (r + rho / 2) * beta}

    return _over_cells(
        masses, numbers, within, order, deviation, epsilon=epsilon, trivial=trivial,
        quantity=f"the mean change of the outputs by attacks of size {attack:g} on new inputs",
        assumptions=(IN_CELLS, SMOOTH),
    )  # fmt: skip


def unevenness(masses: Float[Tensor, " n"] | None, n: int, order: int) -> float:
    r"""How much uneven cells cost: the factor :math:`(\frac1n \sum_i (n p_i)^q)^{1/q}`.

    It is 1 for even cells, and :math:`n^{1/2k}` at most, where one has all the mass.

    >>> unevenness(torch.tensor([0.25, 0.75]), 2, order=1), unevenness(None, 16, order=2)
    (1.118033..., 2.0)
    """
    if masses is None:
        return float(n ** (0.5 / order))
    q = 2 * order / (2 * order - 1)
    return float((n * masses.double()).pow(q).mean() ** (1 / q))


def _over_cells(
    masses: Number | None,
    numbers: dict[str, Number],
    within: Callable[..., Cells],
    order: int | None,
    deviation: float,
    **facts: Any,
) -> Bound:
    """Bound the mean of what is bounded in each cell."""

    def terms(*known: Tensor) -> Terms:
        few = len(numbers)
        return _means(known[few:], within(*known[:few]), order, deviation)

    weighed = numbers if masses is None else {**numbers, "mass of a cell": masses}
    return bounded(weighed, terms, source=SOURCE, **facts)


def _means(masses: Sequence[Tensor], cells: Cells, order: int | None, deviation: float) -> Terms:
    """The means of what is known in each cell, with their masses, or with any if there are none."""
    if not masses and order is None:
        return at_largest(**cells)
    known = [*masses, *cells.values()]
    n = max(each.numel() for each in known)
    if not any(each.ndim for each in known):
        raise ValueError("expected one of the numbers for each example, for how many there are")
    spread = {name: each.expand(n) for name, each in cells.items()}
    p = _shares(*masses) if masses else None
    means = {
        name: float(each.max() if p is None else torch.where(p > 0, p * each, 0).sum())
        for name, each in spread.items()
    }
    if order is not None:
        means["Jacobian"] = unevenness(p, n, order) * seminorm(spread["Jacobian"], order, n)
    if deviation > 0 and masses:
        total = torch.stack(list(spread.values())).sum(0)
        apart = (total.max() - total.min()).nan_to_num(math.inf)
        if order is not None and not cells["Jacobian"].ndim:  # of one example, all of the moment
            apart = apart + unevenness(None, n, order) * cells["Jacobian"]
        means["masses"] = deviation * float(apart)
    return means


def _shares(masses: Tensor) -> Tensor:
    """Masses that sum to 1, up to rounding, which is taken out."""
    total = masses.sum()
    if not abs(float(total) - 1) <= WHOLE:
        raise ValueError(f"expected masses that sum to 1, got {float(total):g}")
    return masses / total
