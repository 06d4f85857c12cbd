"""The search for the worst inputs round all examples, a piece of the data at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from itertools import repeat

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from lossgeom.adversarial._attack import Examples
from lossgeom.adversarial._first_order import FirstOrder, first_order
from lossgeom.autodiff.linearized import Linearized
from lossgeom.linalg import random_numbers
from lossgeom.lipschitz.ball import Ball, Box, Norm, check_norm
from lossgeom.lipschitz.certified.frozen_model import finite
from lossgeom.losses.graphs import with_bytes
from lossgeom.messages.checks import check_at_least

PIECE_BYTES = 2**27  # memory that a piece of the data may take, roughly

Eps = float | Sequence[float]
OwnAttack = Callable[[Ball, Examples], Tensor]


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

    eps: Eps
    norm: Norm
    steps: int
    restarts: int
    seed: int
    bounds: Box | None = None

    def __post_init__(self) -> None:
        check_norm(self.norm)
        if not self.sizes or not all(eps >= 0 and math.isfinite(eps) for eps in self.sizes):
            raise ValueError(f"expected attack sizes 0 <= eps < infinity, got {self.sizes}")
        check_at_least(0, steps=self.steps, seed=self.seed)
        check_at_least(1, restarts=self.restarts)

    @property
    def sizes(self) -> list[float]:
        """The sizes of attack."""
        return [
            float(size) for size in (self.eps if isinstance(self.eps, Sequence) else [self.eps])
        ]

    def of(
        self,
        model: nn.Module,
        inputs: Float[Tensor, "N ..."],
        targets: Int64[Tensor, " N"] | None,
        own: OwnAttack | None = None,
    ) -> Found:
        """Search round all examples, also with the user's own attack."""
        box, generator, flat = self._box(inputs), random_numbers(self.seed), inputs.flatten(1)
        shape = (flat.shape[1], self.restarts)
        probes = torch.randn(shape, generator=generator, dtype=torch.float64)
        balls = [Ball(size, self.norm, box) for size in self.sizes]
        search = _Search(self, model, balls, probes, own, generator)
        size = self._piece_size(model, inputs)
        ys = repeat(None) if targets is None else torch.split(targets, size)
        pieces = [search.found(x, y) for x, y in zip(torch.split(flat, size), ys, strict=False)]
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
class _Search:
    """A model, with all that it takes to attack its inputs."""

    settings: WorstCase
    model: nn.Module
    balls: list[Ball]
    probes: Float[Tensor, "D k"]
    own: OwnAttack | None
    generator: torch.Generator

    def found(self, x: Float[Tensor, "B D"], targets: Int64[Tensor, " B"] | None) -> Found:
        """The worst in every ball, where what is found in one counts for every larger one, too."""
        leaf = x.detach().requires_grad_()
        point = Linearized(leaf, self.model(leaf))
        logits = finite(point.outputs.detach())
        slope = first_order(point, self.settings.norm, self.probes)
        del point  # and its graph
        examples = Examples(self.model, x, logits, targets)
        worst = [self._worst(ball, examples, slope) for ball in self.balls]
        changes, margins = (torch.stack(part) for part in zip(*worst, strict=True))
        inside = [[ball.eps <= size for ball in self.balls] for size in self.settings.sizes]
        return Found(
            torch.stack([changes[smaller].amax(0) for smaller in inside]),
            torch.stack([margins[smaller].amin(0) for smaller in inside]),
            examples.margin(logits),
            slope.value,
            slope.converged,
            logits.norm(dim=-1),
        )

    def _worst(
        self, ball: Ball, examples: Examples, slope: FirstOrder
    ) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        """The largest change and the smallest margin that all attacks in a ball come across."""
        margin = examples.margin(examples.logits)
        change = torch.zeros_like(margin)
        for logits in self._seen(ball, examples, slope):
            change = torch.maximum(change, examples.change(logits).amax(0))
            margin = torch.minimum(margin, examples.margin(logits).amin(0))
        return change, margin

    def _seen(
        self, ball: Ball, examples: Examples, slope: FirstOrder
    ) -> Iterator[Float[Tensor, "R B C"]]:
        """Yield outputs from attacks that begin at the example, beside it and at random."""
        centre, steps = examples.inputs, self.settings.steps
        if ball.eps == 0:
            return
        step = ball.eps * slope.direction
        ends = self._starts(ball, centre, centre + step, centre - step)
        yield from examples.ascent(ball, ends, examples.squared_change, steps)
        if examples.targets is not None:
            starts = self._starts(ball, centre, centre)
            yield from examples.ascent(ball, starts, examples.towards_others, steps)
        if self.own is not None:
            yield examples.outputs(self.own(ball, examples)[None], ball)

    def _starts(self, ball: Ball, centre: Float[Tensor, "B D"], *first: Tensor) -> Tensor:
        """The starts of attacks: some given points, and random ones for the other restarts."""
        shape = (self.settings.restarts - 1, *centre.shape)
        return torch.cat(
            [torch.stack(first), centre + ball.drawn(shape, self.generator).to(centre)]
        )
