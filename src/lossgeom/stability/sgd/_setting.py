"""What is certified, and how a verdict follows from bounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from jaxtyping import Float
from torch import Tensor

from lossgeom.problem import Problem
from lossgeom.stability.sgd._outputs import ExampleOutputs
from lossgeom.stability.sgd._residual import FLAT, residual_noise
from lossgeom.stability.sgd.certificate import Minimum, SGDCertificate, State
from lossgeom.stability.sgd.necessary import along_direction
from lossgeom.stability.sgd.sampling import Sampling, noise_share

ZERO = 1e-4  # of the parameters' length: steps of single examples at an interpolating minimum
SMALL = 0.05  # of the gradients of single examples: their mean at a minimum
ROUNDING = 1e-5  # of a threshold
NOTHING = 1e-12  # of the sharpness: curvature that is none
SAFETY = 3.0  # times the share of what is left out, by which it may move the threshold

SHUFFLED = "DataLoader(shuffle=True) draws reshuffled epochs, the sampling 'reshuffling', instead"
EVEN = "; these were no less stable wherever both are known, but no theorem says so"
RAGGED = (
    "; these may be less stable, as the examples of their last batch, here of {0}, weigh more; "
    "drop_last=True leaves it out"
)
NO_CURVATURE = "no example has any curvature here beside what the Gauss-Newton matrix leaves out"
LOCAL = "this is about steps linearised here, and says nothing of what happens far from this point"
NAMES = {field.name for field in fields(SGDCertificate)}


@dataclass(frozen=True, eq=False)
class Setting:
    """SGD at a point."""

    problem: Problem
    lr: float
    batch_size: int
    momentum: float
    sampling: Sampling
    examples: ExampleOutputs

    @property
    def p(self) -> float | None:
        """The noise share; ``None`` for reshuffled epochs."""
        if self.sampling == "reshuffling":
            return None
        return noise_share(self.examples.n, self.batch_size, self.sampling)

    def left_out(
        self, own: Float[Tensor, " n"], rest: Float[Tensor, " n"] | None
    ) -> tuple[float | None, float]:
        """What Gauss-Newton leaves out along a direction, and what that shows to be unstable.

        Args:
            own: curvatures of the examples along it, by their Gauss-Newton matrices.
            rest: the others; ``None`` where they are not known.

        Returns:
            The share of the latter, and a learning rate from which on no step along the direction
            is stable in mean square.
        """
        if rest is None:
            return None, math.inf
        rest = rest.to(own)
        share = float(rest.norm() / own.norm().clamp(min=1e-300))
        if self.p is None or self.momentum:
            return share, math.inf
        return share, along_direction(own + rest, self.p)

    def notes(self) -> list[str]:
        """What holds for every certificate of this setting."""
        notes, left = [LOCAL], self.examples.n % self.batch_size
        if self.sampling == "without replacement" and self.batch_size < self.examples.n:
            notes.append(SHUFFLED + (RAGGED.format(left) if left else EVEN))
        if self.sampling == "reshuffling" and left:
            notes.append(
                f"the last batch of an epoch has {left} of its {self.batch_size} examples, which "
                "weigh more; drop_last=True would leave it out"
            )
        if self.problem.unset_mode:
            notes.append(self.problem.unset_mode)
        if self.problem.seed is not None:
            notes.append(
                f"random numbers of the model are fixed by seed {self.problem.seed}; where "
                "training draws new ones in every step, it is noisier than this"
            )
        return notes


@dataclass(frozen=True)
class Evidence:
    """What a verdict follows from.

    Attributes:
        setting: SGD, and where.
        lower: a learning rate up to which the linearised steps are stable.
        upper: one from which on they are not.
        true_upper: one from which on steps are not, with what Gauss-Newton leaves out.
        gradient_norm: of the mean loss.
        example_gradient_norm: root mean square of those of the examples.
        lowest: the most negative eigenvalue of the Hessian, if that is known.
        sharpness: the largest, about.
        residual: the share of what is left out.
    """

    setting: Setting
    lower: float
    upper: float
    true_upper: float
    gradient_norm: float
    example_gradient_norm: float
    lowest: float | None
    sharpness: float
    residual: float | None

    @property
    def minimum(self) -> Minimum:
        """What kind of point it is."""
        if self.lowest is not None and self.lowest < -FLAT * self.sharpness:
            return "no minimum"
        # in steps as large as any stable ones, since small learning rates make no minimum
        length = float(self.setting.problem.theta.double().norm())
        if self.example_gradient_norm <= ZERO * length * self.sharpness / 2:
            return "interpolating"
        small = self.gradient_norm <= SMALL * self.example_gradient_norm
        return "regular" if small else "no minimum"

    @cached_property
    def noise(self) -> float | None:
        r"""The noise that Gauss-Newton leaves out, in parts of what damps it anywhere.

        .. math:: \Gamma_R \le \frac{1 + \beta}{1 - \beta} \frac{\eta\, p\,
            \lambda_{\max}(\frac1n \sum_i R_i^2)}{\min_h h\, (2 (1 + \beta) - \eta h)}

        with h of the smallest and the largest eigenvalue of the Hessian, and p of independent
        batches also for reshuffled epochs. It is 0 at an interpolating minimum, where all R_i are.
        ``None`` where it is not known.
        """
        at, b = self.setting, self.setting.momentum
        independent = "without replacement" if at.sampling == "reshuffling" else at.sampling
        p = noise_share(at.examples.n, at.batch_size, independent)
        if self.minimum != "regular" or p == 0 or self.lowest is None:
            return 0.0
        squares = residual_noise(at.problem)
        if squares is None:
            return None
        if squares <= (NOTHING * self.sharpness) ** 2:
            return 0.0
        damped = min(h * (2 * (1 + b) - at.lr * h) for h in (self.lowest, self.sharpness))
        noise = at.lr * p * squares * (1 + b) / (1 - b)
        return noise / damped if damped > 0 else math.inf

    def certificate(self, notes: Sequence[str], **further: Any) -> SGDCertificate:
        """The certificate, given what has no part in the verdict."""
        known = {**vars(self), **vars(self.setting), "examples": self.setting.examples.n}
        state, reasons = self.verdict
        return SGDCertificate(
            state=state,
            reasons=tuple(reasons),
            minimum=self.minimum,
            **{name: known[name] for name in NAMES & known.keys()},
            notes=(*self.setting.notes(), *notes),
            **further,
        )

    @property
    def verdict(self) -> tuple[State, list[str]]:
        """The state, and the reasons for it."""
        lr = self.setting.lr
        if not self.sharpness:
            return "between", [NO_CURVATURE]
        linear = self._linear(lr)
        if self.minimum == "no minimum":
            return "between", [
                self._why_no_minimum(),
                f"with the Gauss-Newton matrices of this point, {linear}",
            ]
        if lr > self.true_upper * (1 + ROUNDING):
            return "unstable", [
                f"along the top eigenvector alone, the learning rate is {lr / self.true_upper:.4g} "
                "times what is stable, all curvature counted"
            ]
        if self.residual is None or self.lowest is None or self.noise is None:
            return "between", [
                "what curvature the Gauss-Newton matrices leave out is not known, because the "
                "model has no second derivative that could be used",
                f"without it, {linear}",
            ]
        margin = ROUNDING + SAFETY * self.residual
        if lr * (1 + margin) <= self.lower:
            room = 1 - math.sqrt(min(self.noise, 1.0))  # root mean squares of noise add up
            if lr * (1 + margin) > self.lower * room * room:
                return "between", [linear, self._why_noise()]
            return "stable", [linear]
        if lr >= self.upper * (1 + margin):
            return "unstable", [linear]
        return "between", [linear, *self._why_not(lr, margin)]

    def _why_no_minimum(self) -> str:
        remedy = "so this is no minimum, which the theory is about; keep training"
        if self.lowest is not None and self.lowest < -FLAT * self.sharpness:
            return (
                f"the smallest eigenvalue of the Hessian is {self.lowest:.2g}, below -{FLAT:g} of "
                f"the sharpness {self.sharpness:.3g}, {remedy}"
            )
        share = self.gradient_norm / self.example_gradient_norm
        return (
            f"the gradient is {share:.2g} of those of single examples, more than {SMALL:g}, "
            f"{remedy}"
        )

    def _why_noise(self) -> str:
        """Why what single examples curve the loss by is too much."""
        if self.noise == math.inf:
            size = (
                "nothing damps it in directions where the loss has next to no curvature, so that "
                "steps may grow there at any learning rate"
            )
        else:
            size = f"it may be {self.noise:.2g} of what damps it where the loss is flattest"
        return (
            "what the Gauss-Newton matrices of single examples leave out, because their residuals "
            f"are not zero, is noise that the mean does not show: {size}"
        )

    def _linear(self, lr: float) -> str:
        """Say where the learning rate is beside the bounds of the linearised steps."""
        if self.lower == self.upper:
            return (
                f"the learning rate is {lr / self.lower:.4g} times the threshold {self.lower:.4g}"
            )
        if lr <= self.lower:
            return f"the learning rate is below {self.lower:.4g}, up to which steps are stable"
        if lr > self.upper:
            return f"the learning rate is above {self.upper:.4g}, from which on steps are unstable"
        stable = f"{self.lower:.4g}, up to which steps are certain to be stable"
        if not math.isfinite(self.upper):
            return f"the learning rate is above {stable}, and nothing more is known"
        unstable = f"{self.upper:.4g}, from which on they are certain not to be"
        return f"the learning rate is between {stable}, and {unstable}"

    def _why_not(self, lr: float, margin: float) -> list[str]:
        if self.lower < lr < self.upper:
            return []
        return [
            f"that is within a margin of {margin:.2g} for what the Gauss-Newton matrices leave "
            f"out: {SAFETY:g} times its share of the curvature along the top eigenvector"
        ]
