"""The settings of the study."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lossgeom.lab.studies._study import require

SURFACES = {
    "1d": 1,
    "2d": 2,
    "3d": 3,
    "5d": 5,
}  # by the dimension of their latent cubes
SURFACE, DECODER, UNREGULARISED = "2d", "decoder", "unregularised"
TASKS = (*SURFACES, DECODER, UNREGULARISED)


@dataclass(frozen=True)
class Config:
    """Settings of the study; the defaults run in less than five minutes on two cores."""

    examples: tuple[int, ...] = (200, 500, 1000, 2000, 5000, 20_000)
    """Sizes of the sample on the surface of two dimensions, increasing."""
    examples_of_others: tuple[int, ...] = (500, 2000)
    """Those on surfaces of other dimensions and of digits, among the above."""
    fit: float = 1e-3
    """Largest error on the sample that counts as a fit."""
    trained_on: int = 1000
    """Examples that the student is trained on, at most; it is the fit on all that counts."""
    new_points: int = 50_000
    """New points that the true error is a mean over."""
    epsilon: float = 0.05
    """The probability that a sample does not cover the support."""

    def __post_init__(self) -> None:
        sizes, others = self.examples, self.examples_of_others
        increasing = all(list(each) == sorted(set(each)) for each in (sizes, others))
        require(
            self,
            increasing and len(sizes) >= 3,
            "three or more increasing sizes",
            "examples",
        )
        among = set() < set(others) <= set(sizes)
        require(self, among, "one or more of the examples", "examples_of_others", "examples")
        require(self, 0 < self.fit < math.inf, "fit > 0", "fit")
        require(self, 0 < self.epsilon < 1, "epsilon in (0, 1)", "epsilon")
        require(self, self.trained_on >= 1, "at least 1", "trained_on")
        require(self, self.new_points >= 2, "at least 2", "new_points")

    def sizes(self, task: str) -> tuple[int, ...]:
        """The sizes of the samples of a task."""
        return self.examples if task == SURFACE else self.examples_of_others


# The paper evaluates nothing; this is the same on larger samples.
PAPER = Config(
    examples=(200, 500, 1000, 2000, 5000, 20_000, 100_000),
    examples_of_others=(500, 2000, 20_000),
    new_points=1_000_000,
)
