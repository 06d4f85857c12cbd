"""Projected gradient ascent on the inputs, for what moves the outputs most or flips the class."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from lossgeom.lipschitz.ball import FIRST_STEP, Ball
from lossgeom.problem import NonFiniteError

ROUNDING = 1e-12  # of outputs in double precision, relative; thousands of units in the last place

Model = Callable[[Tensor], Tensor]
Objective = Callable[[Tensor], Tensor]


def margins(logits: Float[Tensor, "*R B C"], targets: Int64[Tensor, " B"]) -> Float[Tensor, "*R B"]:
    """The output of the target less the largest other one: positive where the class is right."""
    index = targets.expand(logits.shape[:-1])[..., None]
    others = logits.scatter(-1, index, -math.inf).amax(-1)
    return logits.gather(-1, index)[..., 0] - others


@dataclass(frozen=True, eq=False)
class Examples:
    """Some examples, with what the model puts out for them.

    Attributes:
        inputs: (B, D), flat.
        logits: at the inputs.
        targets: classes; ``None`` where only the change of the outputs is asked for.
    """

    inputs: Float[Tensor, "B D"]
    logits: Float[Tensor, "B C"]
    targets: Int64[Tensor, " B"] | None

    def change(self, logits: Float[Tensor, "*R B C"]) -> Float[Tensor, "*R B"]:
        """How far outputs are from those at the examples, less what rounding can add."""
        change, here, there = (
            torch.linalg.vector_norm(x, dim=-1) for x in (logits - self.logits, self.logits, logits)
        )
        known: Tensor = (change - ROUNDING * (here + there)).clamp(min=0)
        return known

    def squared_change(self, logits: Float[Tensor, "*R B C"]) -> Float[Tensor, "*R B"]:
        """Its square, which has a gradient at the examples, too."""
        return (logits - self.logits).square().sum(-1)

    def margin(self, logits: Float[Tensor, "*R B C"]) -> Float[Tensor, "*R B"]:
        """That of the target; infinite without one."""
        if self.targets is None:
            return torch.full_like(logits[..., 0], math.inf)
        return margins(logits, self.targets)

    def towards_others(self, logits: Float[Tensor, "R B C"]) -> Float[Tensor, "R B"]:
        """What attacks on the class raise: the first any other output, the rest one class each.

        A single descent of the margin ends at the class that is nearest where it begins. The others
        aim at the classes in the order of their outputs at the example.
        """
        if self.targets is None:
            return torch.zeros_like(logits[..., 0])
        R, B, C = logits.shape
        index = self.targets[:, None]
        order = self.logits.scatter(1, index, -math.inf).argsort(dim=1, descending=True)
        aims = order[:, torch.arange(R - 1, device=order.device) % (C - 1)].T
        aimed = logits[1:].gather(2, aims[..., None]) - logits[1:].gather(
            2, index.expand(R - 1, B, 1)
        )
        return torch.cat([-margins(logits[:1], self.targets), aimed[..., 0]])


@dataclass(frozen=True, eq=False)
class Seen:
    """The worst that attacks have come across, for each example.

    Attributes:
        change: the largest change of the outputs.
        margin: the smallest margin.
    """

    change: Float[Tensor, " B"]
    margin: Float[Tensor, " B"]

    @classmethod
    def at(cls, examples: Examples) -> Seen:
        """Before any attack."""
        return cls(torch.zeros_like(examples.logits[:, 0]), examples.margin(examples.logits))

    def with_(self, examples: Examples, logits: Float[Tensor, "R B C"]) -> Seen:
        """After a look at the outputs of attacked inputs."""
        return Seen(
            torch.maximum(self.change, examples.change(logits).amax(0)),
            torch.minimum(self.margin, examples.margin(logits).amin(0)),
        )


@dataclass(frozen=True, eq=False)
class Attack:
    """Ascents in a ball, all from their starts at once.

    Attributes:
        model: of inputs (B, D).
        ball: that they stay in.
        steps: of each ascent.
    """

    model: Model
    ball: Ball
    steps: int

    def look(self, points: Float[Tensor, "R B D"], examples: Examples, seen: Seen) -> Seen:
        """What is at points that are given."""
        with torch.no_grad():
            return seen.with_(examples, self.outputs(points))

    def ascend(
        self, starts: Float[Tensor, "R B D"], examples: Examples, objective: Objective, seen: Seen
    ) -> Seen:
        """What is on the way up."""
        points = self.ball.project(starts, examples.inputs)
        for step in range(self.steps):
            points = points.detach().requires_grad_()
            logits = self.outputs(points)
            seen = seen.with_(examples, logits.detach())
            if not logits.requires_grad:
                return seen
            (up,) = torch.autograd.grad(objective(logits).sum(), points, materialize_grads=True)
            length = FIRST_STEP * (1 - step / self.steps) * self.ball.eps
            moved = points.detach() + length * self.ball.steepest(up)
            points = self.ball.project(moved, examples.inputs)
        return self.look(points, examples, seen)

    def outputs(self, points: Float[Tensor, "R B D"]) -> Float[Tensor, "R B C"]:
        """Of the model, which must be finite."""
        logits = torch.unflatten(self.model(points.flatten(0, 1)), 0, points.shape[:2])
        if not logits.isfinite().all():
            raise NonFiniteError(
                "the output of the model is NaN or infinite at an input within "
                f"eps={self.ball.eps:g} of an example"
            )
        return logits
