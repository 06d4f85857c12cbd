"""What was measured along a run, of how far its steps are from their edge of stability."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lossgeom.messages.wording import one_of

Values = Sequence[float | None]
Points = list[tuple[int, float]]  # (step, value), by step

PLAIN_SGD = "2/lr"  # the formula of the threshold of SGD with neither momentum nor decay
STATUSES = ("ok", "nominal", "unknown")
GAUGES = (
    "ratios",
    "losses",
    "realised_edges",
    "update_curvatures",
    "critical_steps",
    "batch_ratios",
)


@dataclass(frozen=True)
class EdgeSeries:
    """What was measured along a run: for each step a value of each gauge, or of some.

    Steps may be in any order; of one that comes twice, the later value counts. ``None`` is a value
    that was not measured, and NaN one that was tried and is not known or not defined; but a loss
    that is NaN or infinite was so.

    Attributes:
        steps: at which something was measured.
        ratios: the largest eigenvalue over the threshold of the same step, so that schedules of the
            learning rate are in them; ``None`` where the learning rate is 0.
        losses: of the full data, before the step.
        realised_edges: zeta = 1 + dL / (lr g.u), whose edge is 1.
        update_curvatures: rho = D.HD / (-g.D) of the update D, whose edge is 2.
        critical_steps: the least multiple of the update that raises the loss, whose edge is 1.
        batch_ratios: batch sharpness over 2/lr.
        full_batch: whether each step was on all of the data; ``None`` if that is not known.
        maximized: whether training raises the loss.
        status: of the threshold: ``"nominal"`` for one that training is seen to pass, ``"unknown"``
            where the optimiser has none.
        quantity: what is divided by the threshold.
        formula: the threshold, such as ``"2/lr"``.
        optimizer: what trains; where the status is ``"unknown"``, that of it which is not known.
        gradient_cosine: the median, over steps, of that of the optimiser's gradient and the one of
            what is measured.
        early: how many ratios are left out because the threshold was nominal at their steps.
        still: how many are, because the learning rate was 0.
        skipped: how many steps that were due were not measured, to keep to a budget of time.

    Raises:
        ValueError: if a gauge has values of another number of steps, or the status is another one.

    >>> EdgeSeries([10, 0], [1.0, 0.5], losses=[None, 2.3]).finite("ratios")
    [(0, 0.5), (10, 1.0)]
    """

    steps: Sequence[int]
    ratios: Values = ()
    losses: Values = ()
    realised_edges: Values = ()
    update_curvatures: Values = ()
    critical_steps: Values = ()
    batch_ratios: Values = ()
    full_batch: bool | None = None
    maximized: bool = False
    status: str = "ok"
    quantity: str = "sharpness"
    formula: str = "the threshold"
    optimizer: str = "this optimiser"
    gradient_cosine: float = math.nan
    early: int = 0
    still: int = 0
    skipped: int = 0

    def __post_init__(self) -> None:
        for name in GAUGES:
            given = len(getattr(self, name))
            if given not in (0, len(self.steps)):
                raise ValueError(
                    f"expected {name} for each of the {len(self.steps)} steps, got {given}; write "
                    "None where there is no value"
                )
        if self.status not in STATUSES:
            raise ValueError(f"expected status to be {one_of(STATUSES)}, got {self.status!r}")

    @classmethod
    def of_eigenvalues(
        cls,
        steps: Sequence[int],
        eigenvalues: Sequence[float | Sequence[float]],
        thresholds: Sequence[float],
        **others: Any,
    ) -> EdgeSeries:
        """Divide the largest eigenvalue of each step by the threshold of that step.

        Args:
            steps: in any order.
            eigenvalues: the largest of each step, or several of each, in either order.
            thresholds: of each step; infinite where the learning rate is 0.
            others: further fields.

        Raises:
            ValueError: if lengths differ.

        >>> EdgeSeries.of_eigenvalues([0, 9], [[1.0, 3.0], [4.0, 2.0]], [8.0, 4.0]).ratios
        (0.375, 1.0)
        """
        largest = [max(each) if isinstance(each, Sequence) else each for each in eigenvalues]
        ratios = tuple(
            None if edge == math.inf else value / edge
            for value, edge in zip(largest, thresholds, strict=True)
        )
        return cls(steps, ratios, still=thresholds.count(math.inf), **others)

    def tried(self, name: str) -> Points:
        """What a gauge was tried at, by step, with NaN where it has no value."""
        by_step = dict(zip(self.steps, getattr(self, name), strict=False))
        return [(step, value) for step, value in sorted(by_step.items()) if value is not None]

    def finite(self, name: str) -> Points:
        """The values of a gauge, by step."""
        return [point for point in self.tried(name) if math.isfinite(point[1])]
