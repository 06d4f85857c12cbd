"""Distributions whose samples cover their support with balls of a known radius."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.linalg import random_numbers
from lossgeom.lipschitz import Bracket
from lossgeom.messages.checks import check_number, check_whole

SPLITS = tuple(0.5 * 0.8**k for k in range(24))  # shares of a radius that the proof may set aside
LARGEST = 2.0**400  # radius that is looked for


class DeltaGood(ABC):
    r"""A distribution whose samples cover its support with balls of a known radius.

    P is delta-good if :math:`\mathrm{supp}(P) \subset \bigcup_i B(x_i, \delta(N, \epsilon))` for N
    independent points, with probability at least :math:`1 - \epsilon`.

    All that is used of P is a function :math:`\Phi` with :math:`P(B(x, r)) \ge \Phi(r)` for every x
    in the support. For every split :math:`\delta = s + t`,

    .. math:: P(\text{some } x \text{ has no } x_i \text{ within } \delta)
        \le (1 - \Phi(t))^N / \Phi(s) \le e^{-N \Phi(t)} / \Phi(s).

    Proof: where :math:`B(x, s + t)` is empty, so is :math:`B(y, t)` for every y in
    :math:`B(x, s)`. The set of such y in the support then has a mass of at least :math:`\Phi(s)`,
    and the mean of its mass is :math:`\int (1 - P(B(y, t)))^N dP(y) \le (1 - \Phi(t))^N`; the rest
    is Markov's inequality. The paper has s = t; the best split, derived here, gives radii that are
    smaller by a factor that tends to 2 as N grows. A radius takes some milliseconds.

    Attributes:
        dimension: d of the support, with :math:`\delta` of about :math:`(\log N / N)^{1/d}`.
        convex: whether the segment between any two points of the support lies in it, which
            Theorems 4.3 and 5.1 need, and 6.1 does not.
        left_out: what lies outside of the support of a law that this one was truncated from: a new
            draw of that law is in no ball with a probability of at most epsilon + left_out.
        certified: whether the radius follows from certified numbers only.
        tight: whether the radius comes from the best split in place of a formula of the paper.

    Source: MacDonald et al., arXiv:2305.14683, Definition 4.1 and Theorem 4.2; Reznikov and Saff,
    arXiv:1504.03029, for the case s = t.
    """

    dimension: int
    convex: bool = True
    left_out: float = 0.0
    certified: bool = True
    tight: bool = True

    @abstractmethod
    def log_ball_mass(self, r: float) -> float:
        """Logarithm of Phi(r), at most the mass of any ball of radius r > 0 round the support."""

    @abstractmethod
    def draw(self, N: int, generator: torch.Generator) -> Float[Tensor, "N D"]:
        """Draw N independent points from a generator, in float64."""

    def stated(self, N: int, epsilon: float) -> float | None:  # noqa: ARG002
        """The radius by the formula of the paper, as it stands; ``None`` where there is none."""
        return None

    def sample(self, N: int, seed: int = 0) -> Float[Tensor, "N D"]:
        """Draw N independent points on the CPU, in float64."""
        return self.draw(N, random_numbers(seed))

    def radius(self, N: int, epsilon: float) -> float:
        """A radius delta with which the balls round N points cover the support.

        It is that of the paper's formula, where there is one and ``tight`` is not set, and of the
        best split otherwise.

        Args:
            N: points, at least 1.
            epsilon: the probability of points that do not cover it, in (0, 1).

        Raises:
            ValueError: for numbers out of range, and for fewer points than the proof needs.
        """
        check_whole(1, N=N)
        check_number("epsilon", epsilon, 0, 1)

        def covers(delta: float) -> bool:
            return any(self._proves(delta, share, N, epsilon) for share in SPLITS)

        stated = None if self.tight else self.stated(N, epsilon)
        if stated is None and (smallest := _smallest(covers)) < math.inf:
            return smallest
        if stated is None or not covers(stated):
            ours = "" if stated is None else f" of {stated:.4g}, with the paper's formula,"
            raise ValueError(
                f"no covering radius{ours} is proved for N = {N} and epsilon = {epsilon:g}: "
                "expected more points" + ", or tight=True" * (stated is not None)
            )
        return stated

    def radius_round(self, points: Float[Tensor, "N D"], epsilon: float) -> float:
        """The same for a sample at hand, of which only the size matters for most distributions."""
        return self.radius(len(points), epsilon)

    def radius_of_mass(self, mass: float) -> float:
        """The radius from which on every ball round the support has a larger mass, or infinity."""
        return _smallest(lambda r: self.log_ball_mass(r) > math.log(mass))

    def _proves(self, delta: float, share: float, N: int, epsilon: float) -> bool:
        """Whether the split of delta into share * delta and the rest shows that it covers."""
        expected = N * math.exp(self.log_ball_mass(delta * (1 - share)))
        return expected + math.log(epsilon) + self.log_ball_mass(delta * share) >= 0


@dataclass(frozen=True)
class Product(DeltaGood):
    r"""The joint distribution of independent points, derived here.

    A joint sample is no grid of its parts: :math:`\sqrt{\delta_1^2 + \delta_2^2}` does not cover
    the square. What holds is that a ball contains the product of balls with
    :math:`r_i^2 = r^2 d_i / d`, :math:`d = \sum d_i`, so that

    .. math:: \Phi(r) = \prod_i \Phi_i \big( r \sqrt{d_i / d} \big),

    and those radii are the best for masses that are powers of the radius.

    Attributes:
        parts: the distributions of the parts, whose coordinates follow each other.

    >>> from lossgeom.bounds import Cube, Sphere
    >>> Product((Cube(1), Sphere(1))).dimension
    2
    """

    parts: tuple[DeltaGood, ...]
    dimension: int = field(init=False, repr=False)
    convex: bool = field(init=False, repr=False)
    left_out: float = field(init=False, repr=False)
    certified: bool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        kept = math.prod(1 - part.left_out for part in self.parts)
        object.__setattr__(self, "dimension", sum(part.dimension for part in self.parts))
        object.__setattr__(self, "convex", all(part.convex for part in self.parts))
        object.__setattr__(self, "left_out", 1 - kept)
        object.__setattr__(self, "certified", all(part.certified for part in self.parts))
        check_whole(1, dimension=self.dimension)

    def log_ball_mass(self, r: float) -> float:
        d = self.dimension
        return sum(part.log_ball_mass(r * math.sqrt(part.dimension / d)) for part in self.parts)

    def draw(self, N: int, generator: torch.Generator) -> Float[Tensor, "N D"]:
        return torch.cat([part.draw(N, generator) for part in self.parts], dim=1)


@dataclass(frozen=True)
class PushForward(DeltaGood):
    r"""The distribution of g(u) for u of another distribution, and g with a Lipschitz constant.

    Balls of radius r are mapped into balls of radius :math:`\mathrm{Lip}(g) r`, so that
    :math:`\delta = \mathrm{Lip}(g) \, \delta_u`.

    Attributes:
        of: the distribution of u.
        map: g, of points (N, d) in float64, such as a generator.
        lipschitz: Lip(g) on the support of ``of``: a bracket, whose upper end counts, or a number,
            with which the radius is no more than an estimate.
        convex: whether the image is, as you know of it.

    Source: MacDonald et al., arXiv:2305.14683, Theorem 4.2.

    >>> from lossgeom.bounds import Cube
    >>> doubled = PushForward(Cube(2), lambda u: 2 * u, Bracket.exactly(2.0), convex=True)
    >>> round(doubled.radius(1000, 0.05), 6), doubled.certified
    (0.449168, True)
    """

    of: DeltaGood
    map: Callable[[Tensor], Tensor]
    lipschitz: float | Bracket
    convex: bool = False
    dimension: int = field(init=False, repr=False)
    left_out: float = field(init=False, repr=False)
    certified: bool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        certified = self.of.certified and isinstance(self.lipschitz, Bracket)
        object.__setattr__(self, "dimension", self.of.dimension)
        object.__setattr__(self, "left_out", self.of.left_out)
        object.__setattr__(self, "certified", certified)
        check_number("lipschitz", self._largest_slope, 0)

    @property
    def _largest_slope(self) -> float:
        constant = self.lipschitz
        return constant.max[1] if isinstance(constant, Bracket) else constant

    def log_ball_mass(self, r: float) -> float:
        return self.of.log_ball_mass(r / self._largest_slope)

    def draw(self, N: int, generator: torch.Generator) -> Float[Tensor, "N D"]:
        with torch.no_grad():
            return self.map(self.of.draw(N, generator))

    def radius(self, N: int, epsilon: float) -> float:
        return self._largest_slope * self.of.radius(N, epsilon)


def _smallest(holds: Callable[[float], bool]) -> float:
    """The radius from which on something holds, by bisection; infinite where there is none."""
    low, high = 1 / LARGEST, LARGEST
    if not holds(high):
        return math.inf
    while high > low * (1 + 1e-9):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
