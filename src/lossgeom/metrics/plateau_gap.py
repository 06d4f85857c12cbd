"""How far below the edge the noise of SGD holds the sharpness."""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace
from typing import Literal

from torch import Tensor

from lossgeom.curvature import Hessian
from lossgeom.estimate import Estimate
from lossgeom.metrics._metric import check_settings
from lossgeom.metrics._of_step import one_lr, stabilisation_of, top_pair
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
            DerivativeError: of the gap, where the third derivative is wrong.
        """
        if self.of == "gap" and step.state.threshold.formula != PLAIN_SGD:
            raise UndefinedError(
                "the gap of the plateau is known for SGD with one learning rate and neither "
                f"momentum nor weight decay, got {' and '.join(step.state.kinds)} with the "
                f"threshold {step.state.threshold.formula}; EdgeRatio measures it for others"
            )
        settings = self.tol, self.max_matvecs, self.seed
        pairs = top_pair(step, Hessian(step.before), *settings)
        noise = self._noise(step, pairs.vectors[:, 0])
        factor = 1.0
        if self.of == "gap":
            at = stabilisation_of(step, *settings)
            factor = plateau_gap(one_lr(step), at.sharpening, at.stabilisation, 1.0)
        return Estimate(
            factor * noise.value,
            factor * (noise.stderr or 0.0),
            converged=pairs.top.converged,
            matvecs=pairs.top.matvecs,
        )

    def _noise(self, step: Step, vector: Tensor) -> Estimate:
        """The noise of batches along the sharpest direction, once a step for the same settings."""
        return step.cache.value(
            Key(PlateauGap, astuple(replace(self, of="noise"))),
            lambda: noise_along(
                step.before,
                vector,
                batch_size=self.batch_size,
                batches=self.batches,
                seed=self.seed,
            ),
        )
