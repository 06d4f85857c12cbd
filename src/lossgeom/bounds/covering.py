"""How far the points of a sample leave anything of their distribution, as fresh points show."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from lossgeom.bounds.delta_good import DeltaGood
from lossgeom.checks import check_number
from lossgeom.extras import required


@dataclass(frozen=True)
class Covered:
    """What balls round a sample cover, by the distances of fresh points from it.

    Attributes:
        radius: the largest distance that a fresh point had from the sample.
        left_out: the mass that is further away than ``radius`` is at most this.
        whole_radius: the balls of this radius cover the whole support; infinite where the geometry
            of the support is not known, or there were too few fresh points for it.
        confidence: the probability that both are so, over the fresh points, for any sample.
        fresh: how many fresh points there were.

    >>> Covered(0.08, 1e-4, 0.09, 0.95, 30000).whole_radius
    0.09
    """

    radius: float
    left_out: float
    whole_radius: float
    confidence: float
    fresh: int


def covering_radius(
    points: Float[Tensor, "N D"],
    fresh: Float[Tensor, "M D"],
    *,
    confidence: float = 0.95,
    distribution: DeltaGood | None = None,
) -> Covered:
    r"""Measure what radius of balls round given points covers a distribution, from fresh points.

    .. math:: r = \max_j \min_i |y_j - x_i|, \qquad q = 1 - (1 - c)^{1/M}

    With confidence c, less than q of the mass is further than r from every :math:`x_i`: a larger
    share would hold none of the M fresh points with a probability of at most :math:`(1 - q)^M`. Of
    the support that says nothing, since a part of mass q may be anywhere. Where the least mass
    :math:`\Phi(s)` of balls round the support is known and exceeds q, every such ball holds a point
    within r of the sample, so that the **whole** support is covered by balls of radius r + s.

    That holds for any points, also of another distribution, and is certified as Theorem 4.2 is. It
    is 2 to 3 times smaller than its radius, which holds before the points are seen. Derived here.

    Cost: a search in a k-d tree for every fresh point, quick up to 10 dimensions; up to N M D in
    more. The distances are in float64.

    Args:
        points: the sample x.
        fresh: the points y, independent of each other and of the sample, from the distribution.
        confidence: c, in (0, 1).
        distribution: that of the fresh points, if it is known.

    Raises:
        ValueError: for numbers that are not finite, or a confidence out of range.
        ImportError: without SciPy, which the extra ``lab`` brings.

    >>> from lossgeom.bounds import Cube
    >>> square = Cube(2)
    >>> points, fresh = square.sample(1000), square.sample(50000, seed=1)
    >>> covered = covering_radius(points, fresh, distribution=square)
    >>> covered.radius < covered.whole_radius < square.radius(1000, 0.05) / 2
    True
    """
    check_number("confidence", confidence, 0, 1)
    tree = required("scipy.spatial").cKDTree(points.double().numpy())
    radius = float(tree.query(fresh.double().numpy())[0].max())
    left_out = -math.expm1(math.log1p(-confidence) / len(fresh))
    gap = math.inf if distribution is None else distribution.radius_of_mass(left_out)
    return Covered(radius, left_out, radius + gap, confidence, len(fresh))
