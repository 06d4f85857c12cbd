"""The planar case: one output and two eigenvalues, where everything is a map of (z, T(0))."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.messages.checks import check_at_least, check_number
from lossgeom.quadratic.hierarchy import flow_limit
from lossgeom.quadratic.model import QuadraticModel
from lossgeom.quadratic.second_derivative import Dense

Plane = tuple[Tensor, Tensor]
ROUNDING = 64  # times the unit of the dtype, that a square may be below 0


@dataclass(frozen=True)
class Planar:
    r"""Gradient descent of a model with D = 1 and Q of the eigenvalues 1 and -epsilon.

    In rescaled units; any two eigenvalues of opposite sign become these when z is scaled. With the
    invariant :math:`E = T(-1) - 2z` the moments close,

    .. math:: T(1) = (1 - \epsilon) T(0) + \epsilon (2 z + E), \qquad
        T(2) = (1 - \epsilon) T(1) + \epsilon T(0),

    .. math:: z' = z - z T(0) + \tfrac12 z^2 T(1), \qquad
        T'(0) = T(0) - 2 z T(1) + z^2 T(2),

    so that (z, T(0)) is all there is. The edge of stability is T(0) = 2. All methods take and
    return tensors of any one shape, z first.

    Attributes:
        eps: :math:`\epsilon`, above 0 and at most 1.
        E: the invariant; 0 is the symmetric choice.

    Raises:
        ValueError: if eps is not in (0, 1], or E not finite.

    Source: the two-dimensional model of Agarwala et al., arXiv:2210.04860; formulas derived.

    >>> z, T = Planar(0.1, -0.76).step(torch.tensor(0.3).double(), torch.tensor(1.6).double())
    >>> round(z.item(), 6), round(T.item(), 6)
    (-0.11592, 0.875344)
    """

    eps: float
    E: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.eps <= 1:
            raise ValueError(
                f"expected eps in (0, 1], got {self.eps}; exchange the two eigenvalues, and scale "
                "z and E so that the one of larger magnitude is 1"
            )
        check_number("E", self.E, -float("inf"), float("inf"))

    def moments(self, z: Tensor, T: Tensor) -> Plane:
        """The moments T(1) and T(2)."""
        first = (1 - self.eps) * T + self.eps * (2 * z + self.E)
        return first, (1 - self.eps) * first + self.eps * T

    def step(self, z: Tensor, T: Tensor) -> Plane:
        """One step of gradient descent."""
        first, second = self.moments(z, T)
        return z - z * T + z.square() * first / 2, T - 2 * z * first + z.square() * second

    def two_steps(self, z: Tensor, T: Tensor) -> Plane:
        """The map whose fixed points are the 2-cycles at the edge of stability."""
        return self.step(*self.step(z, T))

    def velocity(self, z: Tensor, T: Tensor) -> Plane:
        """Time derivatives of gradient flow: -z T(0) and -2 z T(1)."""
        return -z * T, -2 * z * self.moments(z, T)[0]

    def flow_limit(self, z: Tensor, T: Tensor) -> Tensor:
        """T(0) where gradient flow ends, see :func:`lossgeom.quadratic.flow_limit`."""
        omega = torch.tensor([1, -self.eps], dtype=z.dtype, device=z.device)
        z, J = z.flatten(), self.jacobian(z, T)
        return flow_limit(omega, z, J.view(-1, 2)).view_as(T)

    def jacobian(self, z: Tensor, T: Tensor) -> Float[Tensor, "*shape 2"]:
        r"""The coordinates of J, both taken as non-negative.

        .. math:: J_1^2 = \frac{T(0) + 2 \epsilon z + \epsilon E}{1 + \epsilon}, \qquad
            J_2^2 = \epsilon (J_1^2 - 2 z - E)

        Raises:
            ValueError: if a square is negative: no model with this E is there.
        """
        large = (T + self.eps * (2 * z + self.E)) / (1 + self.eps)
        squares = torch.stack([large, self.eps * (large - 2 * z - self.E)], -1)
        unit = torch.finfo(T.dtype).eps
        rounding = ROUNDING * unit * (1 + T.abs() + abs(self.E))[..., None]
        if not bool((squares >= -rounding).all()):
            raise ValueError(
                f"expected points with T(0) >= 2 z + E and T(0) >= -eps (2 z + E), got J^2 = "
                f"{squares.min().item():.3g}: E = {self.E:g} is out of its range there"
            )
        return squares.clamp(min=0).sqrt()

    def model(self, z: Float[Tensor, " R"], T: Float[Tensor, " R"]) -> QuadraticModel:
        """The same runs as a model with two parameters."""
        Q = torch.diag(torch.tensor([1, -self.eps], dtype=z.dtype, device=z.device))
        return QuadraticModel(z[:, None], self.jacobian(z, T)[:, None], Dense(Q[None]))

    def fixed_points(self) -> list[tuple[float, float]]:
        r"""Fixed points with z != 0, as (z, T(0)).

        The line z = 0 consists of fixed points, which are minima, stable where T(0) < 2. The others
        are (-E/2, 0), where J vanishes, and where J is an eigenvector of Q that each step turns
        round: (2, 4 + E) and (-2/eps, 4 - eps E). Those outside of the physical range are left out.
        """
        cases = [
            (-self.E / 2, 0.0), (2.0, 4 + self.E), (-2 / self.eps, 4 - self.eps * self.E)
        ]  # fmt: skip
        return [(z, T) for z, T in dict.fromkeys(cases) if z and T >= 0]

    def nullclines(self, z: Tensor) -> dict[str, Tensor]:
        r"""T(0) as a function of z where one coordinate stands still, besides on z = 0.

        With c = 2 z + E: ``"flow_T"``, where T(1) = 0,

        .. math:: T = -\epsilon c / (1 - \epsilon)

        ``"z"`` and ``"T"`` of gradient descent,

        .. math:: T = \frac{\epsilon z c}{2 - (1 - \epsilon) z}, \qquad
            T = \frac{-\epsilon c\,(2 - (1 - \epsilon) z)}
            {(1 - \epsilon)(2 - (1 - \epsilon) z) - \epsilon z}

        Gradient flow has no other nullcline of z than z = 0 and T(0) = 0. Values may be infinite,
        and are unphysical where they are negative or :meth:`jacobian` refuses them.
        """
        c, rest = 2 * z + self.E, 2 - (1 - self.eps) * z
        return {
            "flow_T": -self.eps * c / (1 - self.eps),
            "z": self.eps * z * c / rest,
            "T": -self.eps * c * rest / ((1 - self.eps) * rest - self.eps * z),
        }

    def descend(
        self, z: Float[Tensor, " R"], T: Float[Tensor, " R"], steps: int, bound: float = 1e6
    ) -> tuple[Float[Tensor, "S R"], Float[Tensor, "S R"]]:
        """Every step of gradient descent, S = steps + 1; constant once ``|z|`` is above the bound.

        Raises:
            ValueError: if steps are negative, or E is out of its range at a start.

        >>> start = torch.tensor([0.05, -0.3]).double(), torch.tensor([2.2, 1.6]).double()
        >>> z, T = Planar(0.1).descend(*start, steps=600)
        >>> [round(value, 6) for value in T[-1].tolist()]
        [1.949879, 1.941858]
        """
        check_at_least(0, steps=steps)
        self.jacobian(z, T)
        path = [(z, T)]
        for _ in range(steps):
            path.append(self.advance(*path[-1], bound))
        return torch.stack([z for z, _ in path]), torch.stack([T for _, T in path])

    def advance(self, z: Tensor, T: Tensor, bound: float) -> Plane:
        """Advance the runs that are within the bound by a step."""
        inside, (new_z, new_T) = z.abs() <= bound, self.step(z, T)
        return torch.where(inside, new_z, z), torch.where(inside, new_T, T)
