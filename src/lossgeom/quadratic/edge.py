"""The limit of the planar case at the edge of stability, and the starts that lead to it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lossgeom.messages.checks import check_at_least
from lossgeom.messages.reprs import short
from lossgeom.quadratic._bisection import bisected
from lossgeom.quadratic.planar import Planar

MARGIN = 0.25  # of the predicted distance from the edge


def edge_limit(eps: float, E: float = 0.0) -> float:
    r"""Where T(0) ends after runs that overshot the edge of stability, in rescaled units.

    .. math:: \lim T(0) = 2 - \tfrac{\epsilon}{4} (2 - E) + O(\epsilon^2)

    so :math:`\lambda_{\max} \to (2 - \epsilon/2) / \eta` for E = 0, slightly below the edge.
    Near (0, 2) the two-step map has the slow variable
    :math:`s = T(0) - 2 - (2 - 2\epsilon + \epsilon E) z` and, with :math:`u = z^2` and
    :math:`\kappa = \epsilon (2 - E)`,

    .. math:: \dot u = 4 s u - 8 u^2, \qquad \dot s = -2 \kappa u
        \quad\Rightarrow\quad u = \tfrac s2 + \tfrac\kappa8 + C e^{4 s/\kappa}.

    A run with :math:`s_0 \gg \kappa` forgets its start, C e^{4 s/\kappa} vanishes, and u = 0 is
    reached at :math:`s = -\kappa/4`. Valid for small eps and an overshoot of several kappa that
    does not make the run catapult; see :func:`edge_limit_from` for smaller ones. Measured, the
    distance from 2 is within 5% of the formula for eps <= 0.01 and -4 <= E <= 1.5, and for E = 0
    within 7% up to eps = 0.1 from a start at (0.05, 2.2). It needs ``eps |E|`` well below 1, too:
    at eps = 0.01 and E = -60 the distance is 0.097, and not 0.155. With momentum the limit is
    ``Descent.edge / 2`` times this, for z and E in units of (1 + beta) / lr, and for a smaller eps
    the closer beta is to 1. For other Q see :func:`edge_limit_at`.

    Raises:
        ValueError: if eps is not in (0, 1] or E not in [-2/eps, 2], which is all that exists at
            z = 0 and T(0) = 2.

    Source: the paper's abstract says that the limit "differs slightly from the edge of stability"
    and is computed: Agarwala et al., arXiv:2210.04860. The formula is derived here.

    >>> edge_limit(0.01), edge_limit(0.01, E=1.0)
    (1.995, 1.9975)
    """
    _check(Planar(eps, E))
    return 2 - eps * (2 - E) / 4


def _check(planar: Planar) -> None:
    if not -2 / planar.eps <= planar.E <= 2:
        raise ValueError(
            f"expected E in [-2/eps, 2] = [{-2 / planar.eps:g}, 2], got {planar.E:g}: no model "
            "with this E is ever at z = 0 and T(0) = 2"
        )


def edge_limit_from(planar: Planar, z: Tensor, T: Tensor) -> Tensor:
    r"""The limit of T(0), with what a run remembers of its start, to leading order.

    The root of :math:`s/2 + \kappa/8 + C e^{4 s/\kappa}` at or below :math:`s_0`, with C from the
    start: for starts below the edge it is their own s, for a large overshoot :math:`-\kappa/4`. It
    takes starts near (0, 2): :math:`|s_0|` and :math:`|z|` well below 1.

    Cost: a bisection. All of one shape; eps and E as in :func:`edge_limit`.

    Source: derived.

    >>> starts = torch.tensor([0.05, 0.01]).double(), torch.tensor([2.2, 1.8]).double()
    >>> [round(value, 4) for value in edge_limit_from(Planar(0.01), *starts).tolist()]
    [1.995, 1.7802]
    """
    _check(planar)
    kappa = planar.eps * (2 - planar.E)
    start = T - 2 - (2 - 2 * planar.eps + planar.eps * planar.E) * z
    offset = z.square() - start / 2 - kappa / 8
    high = torch.minimum(start, torch.full_like(start, kappa)) if kappa else start
    low = high - 4 * z.square() - kappa - 1

    def beyond(s: Tensor) -> Tensor:
        forgotten = torch.exp(4 * (s - start) / kappa) if kappa else torch.zeros_like(s)
        return s / 2 + kappa / 8 + offset * forgotten > 0

    return 2 + bisected(low, high, beyond)


@dataclass(frozen=True)
class Basins:
    """What becomes of planar starts.

    Attributes:
        limit: T(0) after the last step; NaN where the run has diverged.
        highest: the largest T(0) on the way.
        largest: the largest ``|z|`` on the way.
        settled: whether ``|z|`` had come below the tolerance.
        diverged: whether ``|z|`` had passed the bound.
        edge: whether it settled as :func:`edge_limit` predicts, its distance from 2 within a
            quarter of the predicted one.
        catapulted: whether it was above 2 and settled further below it than
            :func:`edge_limit_from` says, by more than a quarter.
    """

    limit: Float[Tensor, "*shape"]
    highest: Float[Tensor, "*shape"]
    largest: Float[Tensor, "*shape"]
    settled: Bool[Tensor, "*shape"]
    diverged: Bool[Tensor, "*shape"]
    edge: Bool[Tensor, "*shape"]
    catapulted: Bool[Tensor, "*shape"]

    __repr__ = short


def basins(
    planar: Planar,
    z: Tensor,
    T: Tensor,
    *,
    steps: int,
    tol: float = 1e-8,
    bound: float = 1e6,
) -> Basins:
    """Follow starts to where they end.

    Cost: a few operations on tensors of the shape of the starts in every step; at the edge it takes
    about 52 / eps steps to settle.

    Args:
        planar: eps and E.
        z: starts.
        T: starts, of the same shape.
        steps: at most.
        tol: of ``|z|``, rescaled.
        bound: of ``|z|``, rescaled.

    Raises:
        ValueError: if E is out of its range, at the edge or at a start.

    >>> T = torch.tensor([1.8, 2.2, 4.4]).double()
    >>> found = basins(Planar(0.01), torch.full_like(T, 0.01), T, steps=8000)
    >>> [round(value, 4) for value in found.limit.tolist()], found.edge.tolist()
    ([1.7802, 1.9949, nan], [False, True, False])
    """
    check_at_least(0, steps=steps)
    predicted = 2 - edge_limit(planar.eps, planar.E)
    remembered = 2 - edge_limit_from(planar, z, T)
    planar.jacobian(z, T)
    z, T = z.detach(), T.detach()  # or the graph of all steps would be kept
    highest, largest = T, z.abs()
    for _ in range(steps):
        if bool(((z.abs() <= tol) | ~(z.abs() <= bound)).all()):
            break
        z, T = planar.advance(z, T, bound)
        highest, largest = torch.maximum(highest, T), torch.maximum(largest, z.abs())
    diverged = ~(z.abs() <= bound)
    settled, distance = z.abs() <= tol, 2 - T
    return Basins(
        limit=torch.where(diverged, torch.nan, T),
        highest=highest,
        largest=largest,
        settled=settled,
        diverged=diverged,
        edge=settled & ((distance - predicted).abs() <= MARGIN * predicted),
        catapulted=settled & (highest > 2) & (distance > (1 + MARGIN) * remembered),
    )
