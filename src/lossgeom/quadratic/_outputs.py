"""All outputs of a network as the residuals of one run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.batches import Batch
from lossgeom.losses.likelihoods import Gaussian
from lossgeom.messages.reprs import short
from lossgeom.problem import NonFiniteError, Problem
from lossgeom.quadratic.point import Loss, squared_error


@dataclass(frozen=True, eq=False)
class Residuals:
    r"""How z is made of the outputs f of a network, all batches one after the other.

    For squared errors :math:`z = s (f - y)`, with the scale s at which the loss is half the square
    of z; for other losses z = f.

    Attributes:
        outputs: at the start, batch by batch.
        targets: y, in one row; zero for other losses.
        scale: s; 1 for other losses.
        loss: from z to the loss.
    """

    outputs: tuple[Tensor, ...]
    targets: Float[Tensor, "1 D"] | float
    scale: float
    loss: Loss = field(repr=False)

    __repr__ = short

    @classmethod
    def of(cls, problem: Problem) -> Residuals:
        """Make the residuals of a problem, in one forward pass."""

        @torch.no_grad()
        def look(batch: Batch) -> tuple[Tensor, Batch, float]:
            outputs = problem.outputs(problem.theta, batch)
            return outputs, batch, problem.terms(outputs, batch)[1]

        outputs, batches, counts = zip(*problem.over_batches(look), strict=True)
        _, divisor = problem.reduced(lambda _: ((0.0, count) for count in counts))
        likelihood = problem.criterion.likelihood
        if isinstance(likelihood, Gaussian):
            y = in_a_row([batch.targets.to(outputs[0]) for batch in batches])
            return cls(outputs, y, math.sqrt(likelihood.curvature / divisor), squared_error)
        return cls(outputs, 0.0, 1.0, partial(_loss, problem, outputs, batches))

    def z(self, outputs: Sequence[Tensor]) -> Float[Tensor, "1 D"]:
        """Make z of the outputs for every batch."""
        return self.scale * (in_a_row(outputs) - self.targets)

    def split(self, u: Float[Tensor, " D"]) -> list[Tensor]:
        """Split numbers for all outputs into batches, in their shapes."""
        return in_shapes(u, self.outputs)


def in_shapes(u: Float[Tensor, " D"], like: Sequence[Tensor]) -> list[Tensor]:
    """Split a vector into tensors of the shapes of others."""
    parts = torch.split(u, [f.numel() for f in like])
    return [part.reshape(f.shape) for part, f in zip(parts, like, strict=True)]


def in_a_row(parts: Sequence[Tensor]) -> Float[Tensor, "1 D"]:
    """Flatten tensors of any shapes into one row, one after the other."""
    return torch.cat([part.reshape(-1) for part in parts])[None]


def _loss(
    problem: Problem, shapes: Sequence[Tensor], batches: Sequence[Batch], z: Float[Tensor, "R D"]
) -> Float[Tensor, " R"]:
    """The loss of each row of outputs; NaN where it is not finite."""
    return torch.stack([_loss_of_row(problem, in_shapes(row, shapes), batches) for row in z])


def _loss_of_row(problem: Problem, outputs: Sequence[Tensor], batches: Sequence[Batch]) -> Tensor:
    try:
        total, divisor = problem.reduced(lambda here: map(here.terms, outputs, batches))
        return total / divisor
    except NonFiniteError:
        return problem.theta.new_tensor(math.nan)
