"""The least multiple of an update that raises the loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, islice

from jaxtyping import Float
from torch import Tensor

from lossgeom.checks import check_at_least, check_number
from lossgeom.estimate import Estimate
from lossgeom.problem import NonFiniteError, Problem
from lossgeom.stability.along import checked_update
from lossgeom.stability.rounding import loss_rounding
from lossgeom.stability.undefined import UndefinedError

RTOL = 2.0**-4
LARGEST = 2.0**20  # multiples that are tried
SMALLEST = 2.0**-20
STRIDE = 8.0  # by which one multiple may exceed the one before
Point = tuple[float, float]  # a multiple, and how far the loss rises there
NOWHERE: Point = (0.0, 0.0)
NEVER: Point = (math.inf, math.inf)
SEEN = 4.0  # standard deviations of rounding that a change of the loss has to exceed


@dataclass(frozen=True)
class CriticalStep:
    """The least multiple of an update that raises the loss, as far as a search has seen.

    Attributes:
        value: between ``low`` and ``high``; infinite if the loss was never seen to rise, and 0 if
            the update goes up from where it starts.
        low: the largest multiple below the value at which the loss was seen to be lower; or 0.
        high: the least at which it was seen to be higher, NaN or infinite; or infinity.
        passes: forward passes spent, with that of the loss itself and those for its rounding.
        converged: whether the interval from ``low`` to ``high`` meets the tolerance.
    """

    value: float
    low: float
    high: float
    passes: int
    converged: bool

    @property
    def estimate(self) -> Estimate:
        """The value with whether it has converged."""
        return Estimate(self.value, converged=self.converged)


def critical_step(
    problem: Problem,
    update: Float[Tensor, " P"],
    *,
    rtol: float = RTOL,
    start: float | None = None,
    max_passes: int = 40,
    rounding: float | None = None,
) -> CriticalStep:
    r"""The least multiple s of an update D that raises the loss.

    .. math:: s_c = \inf \{ s > 0 : L(\theta + s D) > L(\theta) \}

    It has no unit. The step as it was made raised the loss where :math:`s_c < 1`. On a quadratic it
    is :math:`2 / \rho` with the :func:`update_curvature`. It is found from losses alone: from a
    start, multiples are taken up and down until one lowers the loss and another raises it, and
    secants of :math:`(L(\theta + s D) - L(\theta)) / s`, which is linear in s on a quadratic,
    close in on the change. A loss that is NaN or infinite is one that rose. A difference of losses
    of less than four standard deviations of rounding counts neither as rise nor as fall.

    What it cannot tell: how far away the edge is. :math:`2 / (s_c \eta)` is at most the sharpness,
    and equal to it only where the update lies in the sharpest direction: it is an alarm of arrival.
    Nor does it know of a rise between two multiples that it has tried.

    Cost: forward passes only, no derivative: 3 to 6 from a good start, with that of the loss
    itself, and some 8 from none; 4 more where ``rounding`` is not given.

    Args:
        problem: the loss at :math:`\theta`. With that of one task, and the update of training on
            another, :math:`s_c < 1` says that the step leaves the basin of the first.
        update: (P,) D, as it was made, weight decay and momentum included.
        rtol: of the interval, relative to its upper end.
        start: a multiple to start from, such as that of the step before.
        max_passes: forward passes to spend in the search.
        rounding: of the loss, by :func:`lossgeom.stability.loss_rounding`; measured if not given.

    Returns:
        The multiple with its interval. Where rounding hides the change of the loss over more than
        the tolerance it has not converged.

    Raises:
        UndefinedError: for an update of zero, or one so small that no multiple up to 2^20 changes
            the loss by more than its rounding.
        ValueError: for an update of another shape or one that is not finite, or a setting out of
            its range.
        NonFiniteError: where the loss is NaN or infinite at :math:`\theta`.

    Source: Kalra et al., arXiv:2601.16979, which bisects.

    >>> import torch
    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> problem = Problem(model, "squared_error", [(2 * torch.ones(1, 1), torch.zeros(1, 1))])
    >>> round(critical_step(problem, -0.25 * problem.gradient()).value, 4)  # 2 over lr times 4
    2.0
    """
    D = checked_update(problem, update)
    check_number("rtol", rtol, 0, 1)
    check_at_least(1, max_passes=max_passes)
    if start is not None:
        check_number("start", start, 0)
    here = problem.loss()
    passes = 1 if rounding is not None else 5
    noise = SEEN * (loss_rounding(problem) if rounding is None else rounding)

    def rise(s: float) -> float:
        try:
            return problem.at(problem.theta + s * D).loss() - here
        except NonFiniteError:
            return math.inf

    search = _Search(rise, noise, rtol)
    for s in islice(search.multiples(start), max_passes):
        search.try_at(s)
        passes += 1
    return search.found(passes)


def critical_sharpness(
    problem: Problem,
    update: Float[Tensor, " P"],
    lr: float,
    *,
    rtol: float = RTOL,
    start: float | None = None,
    rounding: float | None = None,
) -> Estimate:
    r"""The sharpness that the critical step stands for, whose threshold is always 2 / lr.

    .. math:: \lambda_c = \frac{2}{s_c \eta}

    with the :func:`critical_step`. On a quadratic it is :math:`u^\top H u / u^\top g` for the
    update :math:`D = -\eta u`, and so at most the largest eigenvalue of H for gradient descent. Its
    threshold is :math:`2 / \eta` for every optimiser, with momentum and preconditioner, too: what
    these make of the gradient is in u. With the loss of another task than the one trained on, it is
    the relative critical sharpness, and :math:`\eta > 2 / \lambda_c` leaves that task's basin.

    Cost, and what it cannot tell: as of :func:`critical_step`.

    Args:
        problem: the loss at :math:`\theta`.
        update: (P,) D.
        lr: the learning rate of the update.
        rtol: of the interval of the critical step, relative to its upper end.
        start: a multiple to start from.
        rounding: of the loss; measured if not given.

    Returns:
        The sharpness, in the unit of the Hessian; 0 where no multiple raises the loss.

    Raises:
        UndefinedError: as :func:`critical_step`, and where the update goes up from the start.
        ValueError, NonFiniteError: as :func:`critical_step`.

    Source: Kalra et al., arXiv:2601.16979; the threshold after Lee and Lee, 2026.

    >>> import torch
    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> problem = Problem(model, "squared_error", [(2 * torch.ones(1, 1), torch.zeros(1, 1))])
    >>> round(critical_sharpness(problem, -0.25 * problem.gradient(), lr=0.25).value, 4)
    4.0
    """
    check_number("lr", lr, 0)
    found = critical_step(problem, update, rtol=rtol, start=start, rounding=rounding)
    return sharpness_of(found, lr)


def sharpness_of(step: CriticalStep, lr: float) -> Estimate:
    """The sharpness that a critical step stands for, at a learning rate."""
    if step.value == 0:
        raise UndefinedError(
            "the update goes up the loss from where it starts, so that there is no sharpness at "
            "which it would begin to; CriticalStep is 0"
        )
    return Estimate(2 / (step.value * lr), converged=step.converged)


@dataclass
class _Search:
    """The multiples that were tried, as far as they bound the one that is looked for.

    Attributes:
        rise: of the loss at a multiple.
        noise: what is no rise and no fall.
        rtol: of the interval that is small enough.
        low, lower: the two largest multiples below ``high`` that do not raise the loss.
        fall, fell: the two largest below ``high`` that lower it, each with its rise.
        high, higher: the two least that raise it.
    """

    rise: Callable[[float], float]
    noise: float
    rtol: float
    low: float = 0.0
    lower: float = 0.0
    fall: Point = NOWHERE
    fell: Point = NOWHERE
    high: Point = NEVER
    higher: Point = NEVER

    def try_at(self, s: float) -> None:
        """Take the loss at a multiple."""
        point = (s, self.rise(s))
        if point[1] > self.noise:
            self.higher, self.high = self.high, point
            self.low = self.low if self.low < s else self.fall[0]
            return
        if s > self.low:
            self.lower, self.low = self.low, s
        if point[1] < -self.noise:
            self.fell, self.fall = self.fall, point

    def within(self, s: float) -> bool:
        """Whether the interval from a multiple to the least that raises the loss is small."""
        return s > 0 and s >= self.high[0] * (1 - self.rtol)

    def multiples(self, start: float | None) -> Iterator[float]:
        """Yield what to try next, given what was seen so far, until the interval is small."""
        stride = 2.0 if start is None else 1 + self.rtol / 2
        yield 1.0 if start is None else start * (1 + self.rtol / 4)
        while math.isinf(self.high[0]) or self.low == 0:
            if self.low >= LARGEST or self.high[0] <= SMALLEST:
                return
            yield self._above(stride) if self.low else self._below(stride)
            stride = STRIDE
        for tried in count(1):
            if self.within(self.low):
                break
            yield (self.low + self.high[0]) / 2 if tried % 3 == 0 else self._between()
        if not self.within(self.fall[0]):  # but what is below is rounding: is it, everywhere?
            yield self.high[0] * (1 - 0.9 * self.rtol)

    def _above(self, stride: float) -> float:
        """A multiple above all that were tried, where the secant points."""
        here, beside = self.low, 1 + self.rtol / 3
        if here > self.fall[0] > 0:  # so near the one that is looked for that nothing is seen
            return here * min(beside if self.lower == self.fall[0] else here / self.lower, STRIDE)
        root = self._root(self.fell, self.fall)
        wanted = here * stride if root is None else root * beside
        return min(max(wanted, here * beside), here * STRIDE)

    def _below(self, stride: float) -> float:
        """A multiple below all that were tried, where the secant points."""
        here, beside = self.high[0], 1 - self.rtol / 3
        root = self._root(self.high, self.higher)
        wanted = here / stride if root is None else root * beside
        return max(min(wanted, here * beside), here / STRIDE)

    def _between(self) -> float:
        """A multiple beside the root of the secant, on the side where the interval is longer."""
        low, high = self.low, self.high[0]
        root = self._root(self.fall, self.high)
        if root is None or not low < root < high:
            return math.sqrt(low * high)
        side = -1 if root - low > high - root else 1
        margin = (high - low) / 20
        return min(max(root * (1 + side * self.rtol / 3), low + margin), high - margin)

    def _root(self, a: Point, b: Point) -> float | None:
        """Where the secant of rise / s through two points is zero, if they are there."""
        if not all(s > 0 and math.isfinite(rise) for s, rise in (a, b)):
            return None
        (s, p), (t, q) = ((s, rise / s) for s, rise in (a, b))
        root = s - p * (t - s) / (q - p) if p != q else 0.0
        return root if root > 0 and (q - p) * (t - s) > 0 else None

    def found(self, passes: int) -> CriticalStep:
        """What was found."""
        low, high = self.fall[0], self.high[0]
        if math.isinf(high):
            if not low:
                raise UndefinedError(
                    f"no multiple of the update up to {self.low:.3g} changes the loss by more "
                    f"than its rounding, {self.noise:.2g}"
                )
            return CriticalStep(high, low, high, passes, self.low >= LARGEST)
        if not low:  # within rounding it may have fallen before
            below = self._root(self.high, self.higher) or 0.0
            return CriticalStep(min(below, high), 0.0, high, passes, high <= SMALLEST)
        root = self._root(self.fall, self.high)
        value = (low + high) / 2 if root is None else min(max(root, low), high)
        return CriticalStep(value, low, high, passes, self.within(low))
