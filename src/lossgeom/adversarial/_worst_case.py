"""The search for the worst inputs round all examples, a piece of the data at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import partial

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from lossgeom.adversarial._attack import Attack, Examples, Seen
from lossgeom.adversarial._first_order import FirstOrder, first_order
from lossgeom.adversarial._own_attack import OwnAttack
from lossgeom.autodiff.linearized import Linearized
from lossgeom.autodiff.saved_tensors import with_bytes
from lossgeom.linalg.probes import random_numbers
from lossgeom.lipschitz.ball import Ball, Box, Norm, check_norm
from lossgeom.problem import NonFiniteError

PIECE_BYTES = 2**27  # about what is worked on at a time


@dataclass(frozen=True, eq=False)
class Found:
    """The worst that was found for each attack size and example, and the first order.

    Attributes:
        change: the largest change of the outputs.
        margin: the smallest margin; infinite without targets.
        at_example: the margin at the examples.
        slope: the first-order change per unit of eps.
        converged: whether that is the maximum to first order.
        size: of the outputs at the examples.
    """

    change: Float[Tensor, "K N"]
    margin: Float[Tensor, "K N"]
    at_example: Float[Tensor, " N"]
    slope: Float[Tensor, " N"]
    converged: Bool[Tensor, " N"]
    size: Float[Tensor, " N"]


@dataclass(frozen=True, eq=False)
class WorstCase:
    """Settings of the search."""

    eps: tuple[float, ...]
    norm: Norm
    steps: int
    restarts: int
    seed: int
    bounds: Box | None = None

    def __post_init__(self) -> None:
        check_norm(self.norm)
        if not self.eps or not all(eps >= 0 and math.isfinite(eps) for eps in self.eps):
            raise ValueError(f"expected attack sizes 0 <= eps < infinity, got {list(self.eps)}")
        for name, least in {"steps": 0, "restarts": 1, "seed": 0}.items():
            if getattr(self, name) < least:
                raise ValueError(f"expected {name} >= {least}, got {getattr(self, name)}")

    def of(
        self,
        model: nn.Module,
        inputs: Float[Tensor, "N ..."],
        targets: Int64[Tensor, " N"] | None,
        own: OwnAttack | None = None,
    ) -> Found:
        """Search round all examples, also by an attack of the user's."""
        box, generator = self._box(inputs), random_numbers(self.seed)
        shape = (inputs[0].numel(), self.restarts)
        probes = torch.randn(shape, generator=generator, dtype=torch.float64)
        pieces = []
        size = self._piece_size(model, inputs)
        for start in range(0, len(inputs), size):
            x = inputs[start : start + size]
            y = None if targets is None else targets[start : start + size]
            pieces.append(_Piece(self, model, box, x, y, own, generator).found(probes))
        names = [each.name for each in fields(Found)]
        return Found(*(torch.cat([getattr(p, n) for p in pieces], dim=-1) for n in names))

    def _box(self, inputs: Float[Tensor, "N ..."]) -> Box | None:
        """The bounds, one of each for every input of an example."""
        if self.bounds is None:
            return None
        low, high = (
            torch.as_tensor(bound, dtype=inputs.dtype, device=inputs.device)
            .expand(inputs.shape[1:])
            .flatten()
            for bound in self.bounds
        )
        flat = inputs.flatten(1)
        if not ((flat >= low) & (flat <= high)).all():
            raise ValueError(
                "expected bounds=(low, high) that all inputs are within, got inputs from "
                f"{flat.amin().item():g} to {flat.amax().item():g}"
            )
        return low, high

    def _piece_size(self, model: nn.Module, inputs: Float[Tensor, "N ..."]) -> int:
        """How many examples to work on at a time, from what one more of them saves."""
        sizes = []
        for copies in (1, 2):
            leaf = torch.cat([inputs[:1]] * copies).requires_grad_()
            _, storages = with_bytes(partial(model, leaf))
            sizes.append(sum(storages.values()))
        each = (self.restarts + 1) * (sizes[1] - sizes[0] + 8 * inputs[0].numel())
        return max(1, PIECE_BYTES // each)


@dataclass(frozen=True, eq=False)
class _Piece:
    """Some of the examples, and all that it takes to attack them."""

    search: WorstCase
    model: nn.Module
    box: Box | None
    inputs: Float[Tensor, "B ..."]
    targets: Int64[Tensor, " B"] | None
    own: OwnAttack | None
    generator: torch.Generator

    def found(self, probes: Float[Tensor, "D k"]) -> Found:
        """For all sizes."""
        leaf = self.inputs.detach().requires_grad_()
        point = Linearized.of(leaf, self.model(leaf))
        logits = point.outputs.detach()
        if not logits.isfinite().all():
            raise NonFiniteError("the output of the model is NaN or infinite at these parameters")
        slope = first_order(point, self.search.norm, probes)
        del point  # and its graph
        examples = Examples(self.inputs.flatten(1), logits, self.targets)
        seen = [self.seen(eps, examples, slope) for eps in self.search.eps]
        change, margin = self.nested(seen)
        return Found(
            change, margin, Seen.at(examples).margin, slope.value, slope.converged,
            logits.norm(dim=-1),
        )  # fmt: skip

    def seen(self, eps: float, examples: Examples, slope: FirstOrder) -> Seen:
        """What all attacks of a size find, which begin at the example, beside it and at random."""
        seen, centre = Seen.at(examples), examples.inputs
        if eps == 0:
            return seen
        ball = Ball(eps, self.search.norm, self.box)
        attack = Attack(self.flat, ball, self.search.steps)
        step = eps * slope.direction
        ends = self.starts(ball, torch.stack([centre + step, centre - step]))
        seen = attack.ascend(ends, examples, examples.squared_change, seen)
        if self.targets is None:
            return seen
        starts = self.starts(ball, centre[None])
        seen = attack.ascend(starts, examples, examples.towards_others, seen)
        if self.own is None:
            return seen
        points = self.own.points(ball, self.inputs, self.targets)
        return attack.look(points[None], examples, seen)

    def flat(self, points: Float[Tensor, "B D"]) -> Float[Tensor, "B C"]:
        """The model of flat inputs."""
        outputs: Tensor = self.model(points)
        return outputs

    def starts(self, ball: Ball, first: Float[Tensor, "F B D"]) -> Float[Tensor, "R B D"]:
        """The first points, and random ones for the other restarts."""
        steps = ball.drawn((self.search.restarts - 1, *first.shape[1:]), self.generator)
        return torch.cat([first, self.inputs.flatten(1) + steps.to(first)])

    def nested(self, seen: list[Seen]) -> tuple[Float[Tensor, "K B"], Float[Tensor, "K B"]]:
        """What was found in a ball is in every larger ball, too."""
        change = torch.stack([each.change for each in seen])
        margin = torch.stack([each.margin for each in seen])
        eps = torch.tensor(self.search.eps, dtype=torch.float64, device=change.device)
        inside = [eps <= size for size in eps]
        return (
            torch.stack([change[smaller].amax(0) for smaller in inside]),
            torch.stack([margin[smaller].amin(0) for smaller in inside]),
        )
