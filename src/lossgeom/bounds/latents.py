"""Distributions that generators start from, with the radius in which a sample covers them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.bounds.delta_good import DeltaGood
from lossgeom.messages.checks import check_number, check_whole


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
        d = self.dimension
        r = min(r / self.side, 1e9 * d)  # whose powers are finite
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
        a, u = self.dimension / 2, min(r / self.scale / 2, 0.5**0.5) ** 2
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
    :math:`\rho \le \min(r/2, R)`, every ball of radius r round a point of the support has a ball of
    radius :math:`\rho` in common with it, whose centre is no further out than :math:`R - \rho`.
    By Jensen's inequality the normal distribution, and all the more the truncated one, has there

    .. math:: \Phi(r) = \omega_d \rho^d (2 \pi)^{-d/2}
        \exp\Big( -\frac{(R - \rho)^2}{2} - \frac{d \rho^2}{2 (d + 2)} \Big),

    which grows with :math:`\rho` up to the positive root of
    :math:`d + R \rho = \rho^2 (2 d + 2) / (d + 2)`. It is small for small r: radii fall like
    :math:`1 / \sqrt{\log N}` until N exceeds :math:`e^{R^2/2}`, and then like those of a cube.
    Points of the normal distribution itself cover the ball with the same radius, those outside of
    it do no harm; a new point of it is outside with
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
        d, R = self.dimension, self.cut
        c = (2 * d + 2) / (d + 2)
        rho = min(r / 2, R, (R + math.sqrt(R * R + 4 * c * d)) / (2 * c))
        log_volume = _log_volume(d) + d * math.log(rho / math.sqrt(2 * math.pi))
        return log_volume - (R - rho) ** 2 / 2 - d * rho**2 / (2 * (d + 2))

    def draw(self, N: int, generator: torch.Generator) -> Float[Tensor, "N D"]:
        points = torch.full((N, self.dimension), math.inf, dtype=torch.float64)
        while (outside := points.norm(dim=1) > self.cut).any():
            size = int(outside.sum()), self.dimension
            points[outside] = torch.randn(size, generator=generator, dtype=torch.float64)
        return points


def _rate(N: int, epsilon: float, d: int) -> float:
    return float((math.log(N / epsilon) / N) ** (1 / d))


def _log_volume(d: int) -> float:
    """Logarithm of the volume of the unit ball."""
    return d / 2 * math.log(math.pi) - math.lgamma(d / 2 + 1)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
