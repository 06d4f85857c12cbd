"""What is measured of each run."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from lossgeom.estimate import Estimate
from lossgeom.metrics import Loss, Metric, Sharpness, SobolevSeminorm
from lossgeom.problem import Problem
from lossgeom.smoothness import MultiplicativeInequality, multiplicative_inequality

ORDERS = (1, 2)
Form = Literal["largest", "averaged", "mispaired"]
FORMS: tuple[Form, ...] = ("largest", "averaged", "mispaired")


@dataclass(frozen=True)
class HeldOutLoss:
    """A metric: the loss of a problem whose examples are not trained on."""

    name: str = "test_loss"

    def __call__(self, problem: Problem) -> Estimate:
        """Measure."""
        return Loss()(problem)


@dataclass(frozen=True)
class InequalityRatio:
    """A metric: the left side of the multiplicative inequality of order k over its right side.

    The largest of all examples, or that of the averages. Mispaired, every example's left side is
    over the right side of another, which bounds nothing.
    """

    form: Form
    k: int

    @property
    def name(self) -> str:
        """Its name in records."""
        return f"inequality_ratio_{self.form}_{self.k}"

    def __call__(self, problem: Problem) -> Estimate:
        """Measure."""
        found = problem.cached(multiplicative_inequality, ORDERS)
        return Estimate(self._ratio(found[self.k]))

    def _ratio(self, found: MultiplicativeInequality) -> float:
        if self.form == "largest":
            return found.max_ratio
        if self.form == "mispaired":
            return replace(found, left=found.left.roll(1, 0)).max_ratio
        left, right = found.input_seminorm, found.averaged_right
        if right == 0:
            return 0.0 if left == 0 else math.inf
        return left / right


LOSS, TEST_LOSS, SHARPNESS = Loss(), HeldOutLoss(), Sharpness(tol=0.01)
G_W = {k: SobolevSeminorm("parameters", k) for k in (*ORDERS, 3)}
G_X = {k: SobolevSeminorm("input", k) for k in (*ORDERS, 3)}
RATIOS = {form: tuple(InequalityRatio(form, k) for k in ORDERS) for form in FORMS}
AT_END: tuple[Metric, ...] = (
    *G_W.values(),
    *G_X.values(),
    SHARPNESS,
    *(ratio for each in RATIOS.values() for ratio in each),
)
