"""The settings of the study."""

from __future__ import annotations

from dataclasses import dataclass

from lossgeom.lab.studies._study import require


@dataclass(frozen=True)
class Config:
    """Settings of the study; the defaults run in less than a minute on two cores."""

    eps: tuple[float, ...] = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
    """Minus the smaller eigenvalue of Q, increasing; the other one is 1."""
    small_eps: float = 0.01
    """Up to here the limit is compared with its formula, and the other claims are about it."""
    fit_eps: float = 0.02
    """Up to here the orders in eps are fitted."""
    E: tuple[float, ...] = (-4.0, -2.0, -1.0, 0.0, 0.5, 1.0, 1.5)
    """Values of the invariant, at small_eps."""
    starts: int = 16
    """Starts around each nominal one."""
    spread: float = 0.2
    """How far z and T(0) - 2 are from their nominal values, at most and relative to them."""
    plane_eps: float = 0.1
    """The eps in the figure of the phase plane."""

    def __post_init__(self) -> None:
        eps, E = self.eps, self.E
        fitted = sum(value <= self.fit_eps for value in eps)
        require(self, all(0 < value <= 1 for value in eps), "eps in (0, 1]", "eps")
        require(self, list(eps) == sorted(set(eps)), "increasing eps", "eps")
        require(self, self.small_eps in eps, "small_eps among eps", "small_eps", "eps")
        require(self, fitted >= 3, "three or more eps up to fit_eps", "eps", "fit_eps")
        lowest = -2 / self.small_eps
        require(self, all(lowest <= x < 2 for x in E), "E in [-2/small_eps, 2)", "E")
        require(self, any(E), "an E other than 0", "E")
        require(self, self.starts >= 1, "one start or more", "starts")
        require(self, 0 <= self.spread <= 0.3, "spread in [0, 0.3]", "spread")
        require(self, 0 < self.plane_eps < 1, "plane_eps in (0, 1)", "plane_eps")


# Not the paper's own values of eps and its starts, but ours, with more starts and an eps that is
# nearer to the limit of the theory.
PAPER = Config(eps=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1), starts=64)
