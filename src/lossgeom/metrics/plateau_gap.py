"""How far below the edge the noise of SGD holds the sharpness."""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace
from typing import Literal

from lossgeom.estimate import Estimate
from lossgeom.metrics._metric import check_settings
from lossgeom.metrics._of_step import one_lr, stabilisation_of
from lossgeom.metrics.step import Step
from lossgeom.problem.model_facts import Key
from lossgeom.stability import UndefinedError, noise_along, plateau_gap
from lossgeom.stability.edge_series import PLAIN_SGD

Of = Literal["gap", "noise"]


@dataclass(frozen=True)
class PlateauGap:
    r"""The predicted gap between the sharpness of SGD and 2 / lr; or the noise that it is made of.

    See :func:`lossgeom.plateau_gap` for the formula and what it cannot tell, and
    :func:`lossgeom.self_stabilisation` and :func:`lossgeom.noise_along` for the cost, of which the
    first is spent once for all metrics of it. The standard error is that of the noise.

    Args:
        of: ``"gap"``, or ``"noise"`` for the variance of the gradients of batches along the
            sharpest direction.
        batch_size: of the batches of training; the problem's own batches by default.
        batches: how many are drawn.
        tol: on the residual of the sharpness, relative to it.
        max_matvecs: products to spend on it.
        seed: of the random start and of the batches.

    >>> PlateauGap().name, PlateauGap("noise").name
    ('plateau_gap', 'gradient_noise_along_top')
    """

    of: Of = "gap"
    batch_size: int | None = None
    batches: int = 64
    tol: float = 1e-3
    max_matvecs: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        check_settings(self, {"of": ("gap", "noise")})

    @property
    def name(self) -> str:
        """Key in records."""
        return "plateau_gap" if self.of == "gap" else "gradient_noise_along_top"

    def of_step(self, step: Step) -> Estimate:
        """Measure.

        Raises:
            UndefinedError: where there is one batch and no ``batch_size``; of the gap, also where
                the sharpness is not rising, or for another optimiser than SGD with one learning
                rate and neither momentum nor weight decay.
            DerivativeError: where the third derivative is wrong.
        """
        if self.of == "gap" and step.state.threshold.formula != PLAIN_SGD:
            raise UndefinedError(
                "the gap of the plateau is known for SGD with one learning rate and neither "
                f"momentum nor weight decay, got {' and '.join(step.state.kinds)} with the "
                f"threshold {step.state.threshold.formula}; EdgeRatio measures it for others"
            )
        at, noise = stabilisation_of(step, self.tol, self.max_matvecs, self.seed), self._noise(step)
        top, value, stderr = at.sharpness, noise.value, noise.stderr or 0.0
        if self.of == "gap":
            gap = plateau_gap(one_lr(step), at.sharpening, at.stabilisation, 1.0)
            value, stderr = gap * value, gap * stderr
        return Estimate(value, stderr, converged=top.converged, matvecs=top.matvecs)

    def _noise(self, step: Step) -> Estimate:
        """The noise of batches along the sharpest direction, once a step for the same settings."""
        at = stabilisation_of(step, self.tol, self.max_matvecs, self.seed)
        return step.cache.value(
            Key(PlateauGap, astuple(replace(self, of="noise"))),
            lambda: noise_along(
                step.before,
                at.vector,
                batch_size=self.batch_size,
                batches=self.batches,
                seed=self.seed,
            ),
        )
