"""How far the points of a sample leave anything of their distribution, as fresh points show."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.bounds.delta_good import DeltaGood
from lossgeom.linalg import random_numbers
from lossgeom.messages.checks import check_number, check_whole
from lossgeom.messages.extras import required
from lossgeom.messages.reprs import short


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
    is often 3 times smaller than its radius, which holds before the points are seen. Derived here.

    Cost: a search in a k-d tree for every fresh point, quick up to 10 dimensions; up to N M D in
    more. The distances are in float64.

    Args:
        points: the sample x.
        fresh: the points y, independent of each other and of the sample, from the distribution.
        confidence: c, in (0, 1).
        distribution: that of the fresh points, if it is known.

    Raises:
        ValueError: for numbers that are not finite, a confidence out of range, no fresh points, or
            some of a known distribution that are in the sample.
        ImportError: without SciPy, which the extra ``lab`` brings.

    >>> from lossgeom.bounds import Cube
    >>> square = Cube(2)
    >>> points, fresh = square.sample(1000), square.sample(50000, seed=1)
    >>> covered = covering_radius(points, fresh, distribution=square)
    >>> covered.radius < covered.whole_radius < square.radius(1000, 0.05) / 2
    True
    """
    check_number("confidence", confidence, 0, 1)
    if not len(fresh):
        raise ValueError("expected at least one fresh point, got none")
    tree = required("scipy.spatial").cKDTree(points.detach().double().cpu().numpy())
    distances = tree.query(fresh.detach().double().cpu().numpy())[0]
    if distribution is not None and not distances.all():
        raise ValueError(
            f"expected fresh points that were drawn apart from the sample, but "
            f"{int((distances == 0).sum())} of {len(fresh)} are in it: draw them with another seed"
        )
    left_out = -math.expm1(math.log1p(-confidence) / len(fresh))
    gap = math.inf if distribution is None else distribution.radius_of_mass(left_out)
    radius = float(distances.max())
    return Covered(radius, left_out, radius + gap, confidence, len(fresh))


@dataclass(frozen=True, eq=False)
class MeasuredCovering(DeltaGood):
    r"""A distribution with the radius by which one sample of it covers its support.

    In place of Theorem 4.2, which holds for most samples, :func:`covering_radius` certifies it with
    a confidence of 1 - epsilon for this one, from points that are drawn for it. Every bound that
    takes a distribution takes this one, and is tighter by the factor between the radii, or its
    square.

    Attributes:
        of: the distribution.
        points: the sample, of that or of any distribution.
        fresh: how many points to draw.
        seed: of these, which are independent of all that ``of.sample`` draws.

    Raises:
        ValueError: from ``radius``, for another number of points, an epsilon out of range, or too
            few fresh points; from ``radius_round`` also for other points.
        ImportError: from ``radius``, without SciPy.

    >>> from lossgeom.bounds import Cube
    >>> square = Cube(2)
    >>> measured = MeasuredCovering(square, square.sample(1000))
    >>> round(square.radius(1000, 0.05), 3), round(measured.radius(1000, 0.05), 3)
    (0.225, 0.069)
    """

    of: DeltaGood
    points: Float[Tensor, "N D"]
    fresh: int = 100_000
    seed: int = 0
    dimension: int = field(init=False, repr=False)
    convex: bool = field(init=False, repr=False)
    left_out: float = field(init=False, repr=False)
    certified: bool = field(init=False, repr=False)

    __repr__ = short

    def __post_init__(self) -> None:
        check_whole(1, fresh=self.fresh)
        for name in ("dimension", "convex", "left_out", "certified"):
            object.__setattr__(self, name, getattr(self.of, name))

    def log_ball_mass(self, r: float) -> float:
        return self.of.log_ball_mass(r)

    def draw(self, N: int, generator: torch.Generator) -> Float[Tensor, "N D"]:
        return self.of.draw(N, generator)

    def radius(self, N: int, epsilon: float) -> float:
        check_number("epsilon", epsilon, 0, 1)
        if len(self.points) != N:
            raise ValueError(f"expected the {len(self.points)} points of the sample, got N = {N}")
        drawn = self.draw(self.fresh, random_numbers(self.seed, 1))
        found = covering_radius(self.points, drawn, confidence=1 - epsilon, distribution=self.of)
        if found.whole_radius == math.inf:
            raise ValueError(
                f"{self.fresh} fresh points are too few to see all of the support: expected more"
            )
        return found.whole_radius

    def radius_round(self, points: Float[Tensor, "N D"], epsilon: float) -> float:
        if not torch.equal(points.double(), self.points.double()):
            raise ValueError(
                f"expected the {len(self.points)} points that the covering was measured of, in "
                "their order, got others: measure that of these, or give the distribution itself"
            )
        return self.radius(len(points), epsilon)
