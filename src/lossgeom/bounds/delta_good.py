"""Distributions whose samples cover their support with balls of a known radius."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.checks import check_number, check_whole
from lossgeom.linalg import random_numbers
from lossgeom.lipschitz import Bracket

SPLITS = tuple(0.5 * 0.8**k for k in range(24))  # shares of a radius that the proof may set aside
LARGEST = 2.0**100  # radius that is looked for


class DeltaGood(ABC):
    r"""A distribution P with :math:`\mathrm{supp}(P) \subset \bigcup_i B(x_i, \delta(N, \epsilon))`
    for N independent points, with probability at least :math:`1 - \epsilon`.

    All that is used of P is a function :math:`\Phi` with :math:`P(B(x, r)) \ge \Phi(r)` for every x
    in the support. For every split :math:`\delta = s + t`,

    .. math:: P(\text{some } x \text{ has no } x_i \text{ within } \delta)
        \le (1 - \Phi(t))^N / \Phi(s) \le e^{-N \Phi(t)} / \Phi(s).

    Proof: where :math:`B(x, s + t)` is empty, so is :math:`B(y, t)` for every y in
    :math:`B(x, s)`. The set of such y in the support then has a mass of at least :math:`\Phi(s)`,
    and the mean of its mass is :math:`\int (1 - P(B(y, t)))^N dP(y) \le (1 - \Phi(t))^N`; the rest
    is Markov's inequality. The paper has s = t; the best split, derived here, gives radii that are
    smaller by a factor that tends to 2 as N grows. A radius takes some
    milliseconds.

    Attributes:
        dimension: d of the support, with :math:`\delta` of about :math:`(\log N / N)^{1/d}`.
        convex: whether the segment between any two points of the support lies in it, which
            Theorems 4.3 and 5.1 need, and 6.1 does not.
        left_out: what lies outside of the support of a law that this one was truncated from: a new
            draw of that law is in no ball with a probability of at most epsilon + left_out.
        certified: whether the radius follows from certified numbers only.

    Source: MacDonald et al., arXiv:2305.14683, Definition 4.1 and Theorem 4.2; Reznikov and Saff,
    arXiv:1504.03029, for the case s = t.
    """  # noqa: D205

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

        It is the formula of the paper, where there is one and ``tight`` is not set, and else the
        smallest of the class above.

        Args:
            N: points, at least 1.
            epsilon: the probability of points that do not cover it, in (0, 1).

        Raises:
            ValueError: for numbers out of range, and for fewer points than the proof needs.
        """
        check_whole(1, N=N)
        check_number("epsilon", epsilon, 0, 1)
        stated = None if self.tight else self.stated(N, epsilon)
        if not self._covers(stated or LARGEST, N, epsilon):
            value = f" of {stated:.4g} with the paper's formula" if stated else ""
            raise ValueError(
                f"no covering radius{value} is proved for N = {N} and epsilon = {epsilon:g}: "
                "expected more points" + ", or tight=True" * bool(stated)
            )
        if stated:
            return stated
        low, high = 1 / LARGEST, LARGEST
        while low < (middle := math.sqrt(low * high)) < high:
            low, high = (low, middle) if self._covers(middle, N, epsilon) else (middle, high)
        return high

    def _covers(self, delta: float, N: int, epsilon: float) -> bool:
        """Whether a split of delta proves it."""
        return any(
            N * math.exp(self.log_ball_mass(delta * (1 - share)))
            + math.log(epsilon)
            + self.log_ball_mass(delta * share)
            >= 0
            for share in SPLITS
        )


@dataclass(frozen=True)
class Cube(DeltaGood):
    r"""The uniform distribution on the cube :math:`[0, a]^d`.

    .. math:: \delta(N, \epsilon) = a \, \frac{4 \Gamma(d/2 + 1)^{1/d}}{\sqrt\pi}
        \Big( \frac{\log(N / \epsilon)}{N} \Big)^{1/d}

    which is the split s = t with the mass :math:`2^{-d} \omega_d (r/a)^d` of a ball round a corner,
    the smallest of all, for r up to a. Where the formula gives more than 2 a, it is proved by
    another split or refused; there :math:`\Phi(r) \ge 1 - e^{-2 (r^2 - d/3)^2 / d}` for a = 1 and
    :math:`r^2 \ge d/3`, Hoeffding's inequality for :math:`|u|^2`.

    Attributes:
        dimension: d.
        side: a.
        tight: whether to take the best split (derived here) in place of the formula.

    Source: MacDonald et al., arXiv:2305.14683, Theorem 4.2, (6).

    >>> Cube(2).sample(1000).shape
    torch.Size([1000, 2])
    >>> round(Cube(2).radius(1000, 0.05), 6), round(Cube(2, tight=True).radius(1000, 0.05), 3)
    (0.224584, 0.136)
    """

    dimension: int
    side: float = 1.0
    tight: bool = False

    def __post_init__(self) -> None:
        check_whole(1, dimension=self.dimension)
        check_number("side", self.side, 0)

    def log_ball_mass(self, r: float) -> float:
        r, d = r / self.side, self.dimension
        at_corner = _log_volume(d) + d * math.log(min(r, 1) / 2)
        excess = max(r * r - d / 3, 1e-150)
        return max(at_corner, math.log(-math.expm1(-2 * excess**2 / d)))

    def draw(self, N: int, generator: torch.Generator) -> Float[Tensor, "N D"]:
        size = N, self.dimension
        return self.side * torch.rand(size, generator=generator, dtype=torch.float64)

    def stated(self, N: int, epsilon: float) -> float:
        constant = 4 * math.exp(math.lgamma(self.dimension / 2 + 1) / self.dimension)
        return self.side * constant / math.sqrt(math.pi) * _rate(N, epsilon, self.dimension)


@dataclass(frozen=True)
class Sphere(DeltaGood):
    r"""The uniform distribution on the sphere of dimension d and radius R in :math:`R^{d+1}`.

    .. math:: \delta(N, \epsilon) = R \, 2^{1 + 1/d} (1 - \gamma)^{-1/2}
        \Big( \frac{\log(N / \epsilon)}{N} \Big)^{1/d}

    With :math:`u = r^2 / 4`, a = d/2 and R = 1 the mass of a cap is :math:`I_u(a, a)`, at least
    :math:`u^a (1 - u)^{\max(a - 1, 0)} / (a B(a, a))` for u up to 1/2. For small caps that exceeds
    the :math:`(1 - \gamma)^a r^d / 2` of the paper's proof only if

    .. math:: \gamma \ge 1 - (a B(a, 1/2))^{-2/d},

    0.595, 0.5, 0.435 for d = 1, 2, 3, which is the default. The statement for all gamma in (0, 1)
    follows from other splits, for N large enough: every radius is checked, and refused for fewer.

    Attributes:
        dimension: d, of the sphere, one less than of the space.
        scale: R.
        gamma: in [0, 1); by default the smallest that the paper's proof allows for small caps.
        tight: whether to take the best split (derived here) in place of the formula.

    Source: MacDonald et al., arXiv:2305.14683, Theorem 4.2, (7); what is said of gamma is derived
    here.

    >>> round(Sphere(2, gamma=0.1).radius(1000, 0.05), 4)
    0.2967
    """

    dimension: int
    scale: float = 1.0
    gamma: float | None = None
    tight: bool = False
    convex = False

    def __post_init__(self) -> None:
        check_whole(1, dimension=self.dimension)
        check_number("scale", self.scale, 0)
        check_number("gamma", self._gamma, 0, 1, at_low=True)

    @property
    def _gamma(self) -> float:
        a = self.dimension / 2
        smallest = -math.expm1(-(math.log(a) + _log_beta(a, 0.5)) / a)
        return smallest if self.gamma is None else self.gamma

    def log_ball_mass(self, r: float) -> float:
        a, u = self.dimension / 2, min((r / self.scale) ** 2 / 4, 0.5)
        log_power = a * math.log(u) + max(a - 1, 0) * math.log1p(-u)
        return log_power - math.log(a) - _log_beta(a, a)

    def draw(self, N: int, generator: torch.Generator) -> Float[Tensor, "N D"]:
        normal = torch.randn(N, self.dimension + 1, generator=generator, dtype=torch.float64)
        points: Tensor = normal * (self.scale / normal.norm(dim=1, keepdim=True))
        return points

    def stated(self, N: int, epsilon: float) -> float:
        constant = 2 ** (1 + 1 / self.dimension) / math.sqrt(1 - self._gamma)
        return self.scale * constant * _rate(N, epsilon, self.dimension)


@dataclass(frozen=True)
class Gaussian(DeltaGood):
    r"""The standard normal distribution, truncated to the ball of radius R: derived here.

    Untruncated it is not delta-good, for nothing finite covers its support. With
    :math:`\rho = \min(r/2, R)`, every ball of radius r round a point of the support has a ball of
    radius :math:`\rho` in common with it, whose centre is no further out than :math:`R - \rho`.
    By Jensen's inequality the normal distribution, and all the more the truncated one, has there

    .. math:: \Phi(r) = \omega_d \rho^d (2 \pi)^{-d/2}
        \exp\Big( -\frac{(R - \rho)^2}{2} - \frac{d \rho^2}{2 (d + 2)} \Big).

    That is small far out: radii fall like :math:`1 / \sqrt{\log N}` until N exceeds
    :math:`e^{R^2/2}`, and then like those of a cube. Points of the normal distribution itself cover
    the ball with the same radius, those outside of it do no harm; a new point of it is outside with
    the probability ``left_out``.

    Attributes:
        dimension: d.
        cut: R, in standard deviations.

    >>> latent = Gaussian(2, cut=2.0)
    >>> round(latent.left_out, 4), round(latent.radius(20000, 0.05), 2)
    (0.1353, 0.21)
    """

    dimension: int
    cut: float
    left_out: float = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_whole(1, dimension=self.dimension)
        check_number("cut", self.cut, 0)
        a, u = torch.tensor([self.dimension / 2, self.cut**2 / 2], dtype=torch.float64)
        object.__setattr__(self, "left_out", torch.special.gammaincc(a, u).item())

    def log_ball_mass(self, r: float) -> float:
        d, rho = self.dimension, min(r / 2, self.cut)
        log_volume = _log_volume(d) + d * math.log(rho / math.sqrt(2 * math.pi))
        return log_volume - (self.cut - rho) ** 2 / 2 - d * rho**2 / (2 * (d + 2))

    def draw(self, N: int, generator: torch.Generator) -> Float[Tensor, "N D"]:
        points = torch.full((N, self.dimension), math.inf, dtype=torch.float64)
        while (outside := points.norm(dim=1) > self.cut).any():
            size = int(outside.sum()), self.dimension
            points[outside] = torch.randn(size, generator=generator, dtype=torch.float64)
        return points


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

    >>> doubled = PushForward(Cube(2), lambda u: 2 * u, lipschitz=2.0, convex=True)
    >>> round(doubled.radius(1000, 0.05), 6), doubled.certified
    (0.449168, False)
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


def _rate(N: int, epsilon: float, d: int) -> float:
    return float((math.log(N / epsilon) / N) ** (1 / d))


def _log_volume(d: int) -> float:
    """Logarithm of the volume of the unit ball."""
    return d / 2 * math.log(math.pi) - math.lgamma(d / 2 + 1)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
