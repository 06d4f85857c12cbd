"""What a posterior's distance from the prior costs, with its derivatives in closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from lossgeom.messages.checks import check_at_least, check_number

LEAST_LOG_VARIANCE = -80.0  # of which the inverse is a number in float32


class Divergence(NamedTuple):
    """What the relative entropy of two Gaussians depends on besides the prior's variance.

    Attributes:
        numbers: P.
        squares: all variances of the posterior and squared distances of its mean from the prior's.
        log_stds: the sum of the logarithms of its standard deviations.
    """

    numbers: int
    squares: float
    log_stds: float

    @classmethod
    def of(cls, offset: Float[Tensor, " P"], log_std: Float[Tensor, " P"]) -> Divergence:
        """Sum up a posterior whose mean is at an offset from the prior's."""
        squares = offset.double().square() + (2 * log_std.double()).exp()
        return cls(len(offset), squares.sum().item(), log_std.double().sum().item())

    def kl(self, log_variance: float) -> float:
        """The relative entropy, for the logarithm of the prior's variance."""
        scaled = self.squares * math.exp(-log_variance)
        return (scaled + self.numbers * (log_variance - 1)) / 2 - self.log_stds


@dataclass(frozen=True)
class Complexity:
    r"""The right-hand side of the theorem, for priors with the variances :math:`b e^{-j/p}`.

    Attributes:
        examples: N.
        delta: the probability that the bound fails.
        b, p: of the grid of variances, of which number j has the share
            :math:`6 / (\pi j)^2` of delta.
    """

    examples: int
    delta: float
    b: float
    p: float

    def __post_init__(self) -> None:
        check_at_least(2, examples=self.examples)
        check_number("delta", self.delta, 0, 1)
        check_number("b", self.b, 0)
        check_number("p", self.p, 0)
        if not self.largest > LEAST_LOG_VARIANCE:
            raise ValueError(
                "expected b and p of which the largest prior variance b exp(-1 / p) is above "
                f"{math.exp(LEAST_LOG_VARIANCE):.1g}, got b={self.b:g} and p={self.p:g}"
            )

    @property
    def largest(self) -> float:
        """The logarithm of the largest variance of the grid, j = 1."""
        return math.log(self.b) - 1 / self.p

    def neighbours(self, log_variance: float) -> list[float]:
        """The logarithms of the variances on the grid on either side."""
        j = self.p * (math.log(self.b) - log_variance)
        if math.isnan(j):
            return [j]
        return [math.log(self.b) - max(i, 1) / self.p for i in (math.floor(j), math.ceil(j))]

    def __call__(self, kl: float, log_variance: float) -> float:
        r""":math:`(KL + 2 \ln j + \ln(\pi^2 N / 6 \delta)) / (N - 1)`, also between the j."""
        j = self.p * (math.log(self.b) - log_variance)
        confidence = math.log(math.pi**2 * self.examples / (6 * self.delta))
        return (kl + 2 * math.log(j) + confidence) / (self.examples - 1)

    def gradients(self, apart: Divergence, log_variance: float) -> tuple[float, float, float]:
        r"""The numbers (a, c, d) of the gradients of :meth:`root`.

        .. math:: a (\mu - \theta_0) \text{ in } \mu, \quad a \sigma^2 - c \text{ in } \ln \sigma,
            \quad d \text{ in } \ln \sqrt\lambda
        """
        by = 1 / (4 * (self.examples - 1) * self.root(apart.kl(log_variance), log_variance))
        precision = by * math.exp(-log_variance)
        union = 4 * by / (math.log(self.b) - log_variance)
        return precision, by, by * apart.numbers - precision * apart.squares - union

    def root(self, kl: float, log_variance: float) -> float:
        """The square root of half the complexity, which is about what it adds to an error."""
        return math.sqrt(self(kl, log_variance) / 2)
