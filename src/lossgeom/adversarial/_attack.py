"""Projected gradient ascent on the inputs, for what moves the outputs most or flips the class."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from lossgeom.lipschitz.ball import FIRST_STEP, Ball, Points
from lossgeom.problem import NonFiniteError

ROUNDING = 1e-12  # relative error of outputs in float64: thousands of units in the last place

Model = Callable[[Tensor], Tensor]
Objective = Callable[[Tensor], Tensor]
Logits = Float[Tensor, "*R B C"]
Numbers = Float[Tensor, "*R B"]
Classes = Int64[Tensor, " B"]


def margins(logits: Logits, targets: Classes) -> Numbers:
    """The output of the target less the largest other one: positive where the class is right."""
    index = targets.expand(logits.shape[:-1])[..., None]
    others = logits.scatter(-1, index, -math.inf).amax(-1)
    return logits.gather(-1, index)[..., 0] - others


@dataclass(frozen=True, eq=False)
class Examples:
    """Some examples, with what the model puts out for them and what attacks on them raise.

    Attributes:
        model: of inputs (B, D).
        inputs: (B, D), flat.
        logits: at the inputs.
        targets: classes; ``None`` where only the change of the outputs is asked for.
    """

    model: Model
    inputs: Float[Tensor, "B D"]
    logits: Float[Tensor, "B C"]
    targets: Classes | None

    def change(self, logits: Logits) -> Numbers:
        """How far outputs are from those at the examples, less what rounding can add."""
        change, here, there = (
            torch.linalg.vector_norm(x, dim=-1) for x in (logits - self.logits, self.logits, logits)
        )
        known: Tensor = (change - ROUNDING * (here + there)).clamp(min=0)
        return known

    def squared_change(self, logits: Logits) -> Numbers:
        """The square of the change, which has a gradient at the examples, too."""
        return (logits - self.logits).square().sum(-1)

    def margin(self, logits: Logits) -> Numbers:
        """The margin of the target; infinite without one."""
        if self.targets is None:
            return torch.full_like(logits[..., 0], math.inf)
        return margins(logits, self.targets)

    def towards_others(self, logits: Logits) -> Numbers:
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

    def outputs(self, points: Points, ball: Ball) -> Logits:
        """The outputs of the model for inputs in a ball, which must be finite."""
        logits = torch.unflatten(self.model(points.flatten(0, 1)), 0, points.shape[:2])
        if not logits.isfinite().all():
            raise NonFiniteError(
                "the output of the model is NaN or infinite at an input within "
                f"eps={ball.eps:g} of an example"
            )
        return logits

    def ascent(
        self, ball: Ball, starts: Points, objective: Objective, steps: int
    ) -> Iterator[Logits]:
        """Yield the outputs on the way up in a ball, from all starts at once."""
        points = ball.project(starts, self.inputs)
        for step in range(steps + 1):
            points = points.detach().requires_grad_(step < steps)
            logits = self.outputs(points, ball)
            yield logits.detach()
            if step == steps or not logits.requires_grad:
                return
            (up,) = torch.autograd.grad(objective(logits).sum(), points, materialize_grads=True)
            length = FIRST_STEP * (1 - step / steps) * ball.eps
            points = ball.project(points.detach() + length * ball.steepest(up), self.inputs)
