"""What is known of the stability of SGD at a minimum, and how it is told."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from lossgeom.messages.reprs import short
from lossgeom.stability.sgd.sampling import Sampling

State = Literal["stable", "unstable", "between"]
Minimum = Literal["interpolating", "regular", "no minimum"]


@dataclass(frozen=True)
class SGDCertificate:
    """Whether SGD with some settings stays near a minimum in mean square, and why.

    ``print`` tells in words what decides; ``bounds``, ``moments`` and ``noise_kernel`` are further
    numbers for those who look for them.

    Attributes:
        state: ``"stable"``, ``"unstable"``, or ``"between"`` where that is not certified.
        reasons: for this state.
        lr: the learning rate.
        batch_size: B.
        momentum: of heavy ball.
        sampling: how batches are drawn.
        examples: n.
        lower: a learning rate up to which the linearised steps are stable.
        upper: one from which on they are not; equal to ``lower`` where the threshold is exact, and
            infinite where none is known.
        smallest_batch: the smallest batch size that is stable with this learning rate, of batches
            that are drawn independently; ``None`` where there is none or it is not known.
        minimum: ``"interpolating"`` where the gradient of every example is zero, ``"regular"``
            where only their mean is, up to the tolerances in :func:`certify_sgd`.
        gradient_norm: of the mean loss.
        example_gradient_norm: root mean square of those of the examples.
        residual: the curvature that the Gauss-Newton matrices of the examples leave out, along the
            top eigenvector, relative to theirs; ``None`` where it is not known.
        lowest: the smallest eigenvalue of the Hessian, which a minimum has none below zero of;
            ``None`` where it is not known.
        sharpness: the largest eigenvalue of the Gauss-Newton matrix.
        single_batch: a learning rate up to which no single batch oscillates unstably; beyond it,
            away from the linearised steps, one that does is enough for SGD to diverge in
            expectation. It is 0 where nothing is known.
        noise_kernel: an estimate of the noise from the spectrum alone, whose edge is about 1;
            ``None`` with momentum or reshuffled epochs.
        bounds: learning rates that the threshold is at most, by the condition they come from.
        moments: thresholds for moments of other orders, where they could be enumerated; that of
            order 3 is of the moment tensor, not of the absolute moment.
        excess_loss: how far above its minimum the loss settles in the mean, at a regular minimum
            that is stable; ``None`` where it is not known, as with momentum.
        notes: what else there is to know.
    """

    state: State
    reasons: tuple[str, ...] = field(repr=False)
    lr: float
    batch_size: int
    momentum: float
    sampling: Sampling
    examples: int
    lower: float
    upper: float
    smallest_batch: int | None
    minimum: Minimum
    gradient_norm: float
    example_gradient_norm: float
    residual: float | None
    lowest: float | None
    sharpness: float
    single_batch: float
    noise_kernel: float | None
    bounds: Mapping[str, float] = field(repr=False)
    moments: Mapping[int, float] = field(repr=False)
    excess_loss: float | None
    notes: tuple[str, ...] = field(repr=False)

    __repr__ = short

    @property
    def threshold(self) -> float | None:
        """The largest stable learning rate, where it is exact."""
        return self.lower if self.lower == self.upper else None

    @property
    def ratio(self) -> float | None:
        """The learning rate over the threshold, where that is exact."""
        return None if self.threshold is None else self.lr / self.threshold

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        momentum = f", momentum {self.momentum:g}" if self.momentum else ""
        drawn = "in reshuffled epochs" if self.sampling == "reshuffling" else self.sampling
        yield (
            f"SGD at this {self._point} is {self._verdict} (learning rate {self.lr:g}{momentum}, "
            f"batches of {self.batch_size} of {self.examples} examples {drawn})"
        )
        yield from (f"  {reason}" for reason in self.reasons)
        if not any(f"{self.lower:.4g}" in reason for reason in self.reasons):
            yield f"  threshold of the learning rate: {self._threshold}"
        if self.smallest_batch is not None:
            yield (
                "  with this learning rate, the linearised steps are stable from batches of "
                f"{self.smallest_batch} on"
            )
        if self.threshold is None and self.bounds:
            name, bound = min(self.bounds.items(), key=lambda item: item[1])
            yield f"  the threshold is at most {bound:.4g}, by the condition on the {name}"
        if self.excess_loss is not None:
            yield f"  the loss settles {self.excess_loss:.3g} above its minimum, in the mean"
        if self.state != "unstable" and 0 < self.single_batch < self.lr:
            yield (
                f"  beyond a learning rate of {self.single_batch:.4g} a single batch may be "
                "unstable by itself, and carry SGD away from farther off the minimum"
            )
        yield (
            f"  measured here: gradient {self.gradient_norm:.2g}, of single examples "
            f"{self.example_gradient_norm:.2g}; {self._residual}{self._lowest}"
        )
        yield from (f"note: {note}" for note in self.notes)

    @property
    def _point(self) -> str:
        return "point" if self.minimum == "no minimum" else f"{self.minimum} minimum"

    @property
    def _verdict(self) -> str:
        not_known = "neither certified to be stable nor to be unstable"
        return not_known if self.state == "between" else f"{self.state} in mean square"

    @property
    def _threshold(self) -> str:
        if self.threshold is not None:
            of_it = "" if self.ratio is None else f", of which this is {self.ratio:.4g} times"
            return f"{self.threshold:.6g}{of_it}"
        most = f" and at most {self.upper:.6g}" if math.isfinite(self.upper) else ""
        return f"at least {self.lower:.6g}{most}"

    @property
    def _lowest(self) -> str:
        return (
            "" if self.lowest is None else f"; smallest eigenvalue of the Hessian {self.lowest:.2g}"
        )

    @property
    def _residual(self) -> str:
        if self.residual is None:
            return "what Gauss-Newton leaves out is not known"
        return (
            f"curvature that Gauss-Newton leaves out {self.residual:.2g} of its own, along the top "
            "eigenvector"
        )
