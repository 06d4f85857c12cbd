"""All that is known of a trained model, and what follows from it for every family of bounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lossgeom.bounds._near import Difference, Near, in_double
from lossgeom.bounds._training import Epoch
from lossgeom.bounds.bound import Bound
from lossgeom.bounds.cell_bounds import cell_bounds
from lossgeom.bounds.delta_good import DeltaGood
from lossgeom.linalg import random_numbers
from lossgeom.lipschitz import Bracket
from lossgeom.lipschitz.certified.frozen_model import all_inputs
from lossgeom.problem import Problem

FEW = 64  # examples, of what is said of each by itself
SOME = 2000  # of what is said of their mean
NEW = 10_000  # draws that errors are measured on
SEARCHED = 0  # examples round which ascents look for lower sides, which no table shows
APART = 73  # of the random numbers of new draws


@dataclass(frozen=True)
class Drawn:
    """What new draws say of model and teacher.

    Attributes:
        error: the mean distance of both.
        stderr: its standard error.
        constant: the mean distance of the teacher from its mean.
    """

    error: float
    stderr: float
    constant: float

    @property
    def how(self) -> str:
        """How the error was measured."""
        return f"over {NEW:,} new draws, +- {self.stderr:.1g}"


@dataclass(frozen=True, eq=False)
class Given:
    """What :func:`lossgeom.bounds.compare` was given, under the names that it has there.

    What may be left out is None then; a family is asked for no rows without all that it needs.
    """

    problem: Problem
    test: Any
    prior: Any
    distribution: Any
    generator: Any
    latents: Any
    teacher: Any
    lr: Any
    batch_size: Any
    radius: float
    epsilon: float
    epochs: int
    seed: int
    on_epoch: Callable[[Epoch], None]
    covering: str = "stated"
    posterior: Any = None
    on_posterior: Callable[[Mapping[str, Tensor]], None] = lambda _: None

    @cached_property
    def inputs(self) -> Float[Tensor, "N ..."]:
        """The inputs of all examples."""
        return all_inputs(self.problem)

    @cached_property
    def model(self) -> nn.Module:
        """The model at the parameters of the problem, in float64."""
        model = in_double(self.problem.model)
        with torch.no_grad():
            for name, held in self.problem.unflatten(self.problem.theta).items():
                model.get_parameter(name).copy_(held)
        return model

    @cached_property
    def sample(self) -> Float[Tensor, "N ..."]:
        """Draws from the distribution: the inputs themselves, their latents, or others."""
        made: Tensor = self.inputs
        if self.latents is not None:
            made = self.latents.double()
        elif self.generator is not None:
            made = self.distribution.sample(len(made), self.seed)
        return made

    @property
    def outputs(self) -> int:
        """How many outputs the model has."""
        return self.of_latents(self.model, self.sample[:1]).shape[1]

    @property
    def slope(self) -> str:
        """The unit of slopes in what is drawn, if that is not the inputs."""
        drawn = "units of the outputs per unit of what the generator takes"
        return "" if self.generator is None else drawn

    @property
    def where(self) -> str:
        """The map whose Jacobians these are, in words."""
        return "of the model" if self.generator is None else "of the model after the generator"

    def of_latents(self, module: nn.Module, latents: Tensor) -> Float[Tensor, "N C"]:
        """What a module makes of what the generator makes of draws from the distribution."""
        with torch.no_grad():
            inputs = latents if self.generator is None else self.generator(latents)
            made: Tensor = module(inputs.reshape(-1, *self.inputs.shape[1:]))
        return made.flatten(1)

    @property
    def targets(self) -> Float[Tensor, "N C"]:
        """What the teacher makes of the sample."""
        return self.of_latents(self.teacher, self.sample)

    @cached_property
    def drawn(self) -> Drawn:
        """How model and teacher compare on new draws."""
        new = fresh(self.distribution, NEW, self.seed)
        target = self.of_latents(self.teacher, new)
        errors = (self.of_latents(self.model, new) - target).norm(dim=1)
        return Drawn(
            errors.mean().item(),
            (errors.var() / NEW).sqrt().item(),
            (target - target.mean(0)).norm(dim=1).mean().item(),
        )

    def after_generator(self, module: nn.Module) -> nn.Module:
        """A module as a function of what is drawn from the distribution."""
        return module if self.generator is None else nn.Sequential(self.generator, module)

    def near(self, module: nn.Module) -> Near:
        """What is known of a module, after the generator, near the sample."""
        radius = self.distribution.radius_round(self.sample.flatten(1), self.epsilon)
        return Near(self.after_generator(module), self.sample, radius, SEARCHED, self.seed)

    @cached_property
    def near_model(self) -> Near:
        """The same of the model."""
        return self.near(self.model)

    @cached_property
    def cells(self) -> dict[str, Bound]:
        """What weighing the cells of the sample gives."""
        return cell_bounds(
            self.after_generator(self.model), self.after_generator(self.teacher),
            self.sample.flatten(1), self.distribution, attack=self.radius, epsilon=self.epsilon,
            searched=SEARCHED, seed=self.seed,
        )  # fmt: skip

    @cached_property
    def fit(self) -> Bracket:
        """The distance of model and teacher at the sample."""
        return self.near(Difference(self.model, self.teacher)).size


def fresh(distribution: DeltaGood, N: int, seed: int) -> Float[Tensor, "N D"]:
    """Draws that are in no sample, whatever its seed, as the data may be."""
    return distribution.draw(N, random_numbers(seed, tag=APART))


def few(problem: Problem, most: int = FEW) -> Problem:
    """A problem on the first of its examples."""
    return problem.take(min(most, sum(problem.over_batches(len))))


def covering(distribution: DeltaGood, N: int, epsilon: float) -> float:
    """The radius with which N points cover a support; infinite where none is proved."""
    try:
        return distribution.radius(N, epsilon)
    except ValueError:
        return math.inf
