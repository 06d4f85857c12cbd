"""All that is known of a trained model, and what follows from it for every family of bounds."""

from __future__ import annotations

import math
from collections.abc import Callable
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
from lossgeom.checks import check_number, check_whole
from lossgeom.linalg import random_numbers
from lossgeom.lipschitz import Bracket
from lossgeom.lipschitz.certified.frozen_model import all_inputs
from lossgeom.problem import NonFiniteError, Problem
from lossgeom.wording import unknown

COVERINGS = ("stated", "measured")
FEW = 64  # examples, of what is said of each by itself
SOME = 2000  # of what is said of their mean
NEW = 10_000  # draws that errors are measured on
SEARCHED = 0  # examples round which ascents look for lower sides, which no table shows
FRESH = 2000  # draws that a sample is compared with
ROWS = 4096  # of it at a time
APART = 73  # of the random numbers of new draws
SURE = 1e-6  # the probability that one from the distribution is refused
ROUNDED = 1e-5  # of data in float32, relative to the largest number


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
    def where(self) -> str:
        """Whose Jacobians these are."""
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


def check_given(given: Given) -> None:
    """Raise a ValueError for what does not go together, before anything is computed."""
    check_number("radius", given.radius, 0)
    check_number("epsilon", given.epsilon, 0, 1)
    check_whole(0, epochs=given.epochs)
    if given.covering not in COVERINGS:
        raise ValueError(unknown("covering", given.covering, COVERINGS))
    _check_sgd(given.lr, given.batch_size, len(given.inputs))
    if given.test is not None:
        _check_test(given.problem, given.test)
    if given.distribution is None and given.generator is not None:
        raise ValueError(
            "expected the distribution of what the generator takes, too: distribution= (--latent)"
        )
    if given.generator is None and given.latents is not None:
        raise ValueError("expected the generator that makes the data from the latents, too")
    inputs = given.inputs
    if given.teacher is not None:
        wanted = _made("the model", given.model, inputs[:2])
        got = _made("the teacher", given.teacher, inputs[:2])
        if got.shape != wanted.shape:
            raise ValueError(
                f"expected a teacher that makes {tuple(wanted.shape[1:])} of an input, as the "
                f"model does, got {tuple(got.shape[1:])}"
            )
    if given.distribution is not None:
        _check_support(given, given.distribution)


def _check_sgd(lr: float | None, batch_size: int | None, N: int) -> None:
    """Check the settings of SGD, as far as they are given."""
    if lr is not None:
        check_number("lr", lr, 0)
    if batch_size is not None:
        check_whole(1, batch_size=batch_size)
    if batch_size is not None and batch_size > N:
        raise ValueError(f"expected batch_size <= {N}, the number of examples, got {batch_size}")


def _check_test(problem: Problem, test: Problem) -> None:
    """Check that new data are like the training data, each batch of them."""
    wanted, got = (_kind(each.first_batch().targets) for each in (problem, test))
    if wanted != got:
        raise ValueError(
            f"expected test data (--test) with targets like those of the training data, {wanted}, "
            f"got {got}"
        )
    try:
        test.loss()
    except NonFiniteError:
        pass  # which is a result
    except Exception as error:  # of whatever model and loss say to data that are not for them
        raise ValueError(
            f"expected test data (--test) that model and loss take as they take the training data, "
            f"got {type(error).__name__}: {error}"
        ) from error


def _kind(targets: Any) -> str:
    """What targets are, in words."""
    if not torch.is_tensor(targets):
        return f"of type {type(targets).__name__}"
    numbers = "numbers" if targets.is_floating_point() else "whole numbers"
    return f"{numbers} of shape ({', '.join(['B', *map(str, targets.shape[1:])])})"


def _made(what: str, module: nn.Module, inputs: Tensor) -> Tensor:
    """What a module makes of inputs."""
    try:
        with torch.no_grad():
            made: Tensor = module(inputs)
        return made
    except Exception as error:  # of whatever a module says to inputs that are not for it
        raise ValueError(
            f"expected {what} to take inputs {tuple(inputs.shape)} in float64, got "
            f"{type(error).__name__}: {error}"
        ) from error


def _check_support(given: Given, distribution: DeltaGood) -> None:
    """Check that a distribution, through the generator, makes the data."""
    inputs, drawn = given.inputs, distribution.sample(2, given.seed)
    shape = tuple(inputs.shape[1:])
    if given.generator is not None:
        made = _made("the generator", given.generator, drawn)
        if tuple(made.shape[1:]) != shape:
            raise ValueError(
                f"expected a generator that makes inputs {shape} for the model, got "
                f"{tuple(made.shape[1:])}"
            )
    elif drawn[0].numel() != inputs[0].numel():
        raise ValueError(
            f"expected a distribution of inputs {shape}, got one of {drawn[0].numel()} numbers; "
            "if the inputs are made from these, give the generator"
        )
    if given.latents is not None:
        _check_latents(given, given.latents, drawn)
    if given.generator is None or given.latents is not None:
        _check_drawn(distribution, given.sample.flatten(1), given.seed)


def _check_latents(given: Given, latents: Tensor, drawn: Tensor) -> None:
    """Check that latents are as many and as long as they should be, and make the data."""
    expected = (len(given.inputs), *drawn.shape[1:])
    if tuple(latents.shape) != expected:
        got = tuple(latents.shape)
        raise ValueError(f"expected latents {expected}, a row for each example, got {got}")
    made = given.of_latents(nn.Identity(), latents.double())
    apart = (made - given.inputs.flatten(1)).abs().amax(1)
    if not (apart <= ROUNDED * made.abs().max()).all():
        raise ValueError(
            "expected latents of which the generator makes the data, in their order, but example "
            f"{int(apart.argmax())} is off by {apart.max().item():.3g}"
        )


def _check_drawn(distribution: DeltaGood, sample: Tensor, seed: int) -> None:
    """Check that a sample can be from a distribution: both it and new draws cover the support."""
    new = fresh(distribution, FRESH, seed)
    apart = [torch.cdist(rows, new) for rows in torch.split(sample, ROWS)]
    outside = torch.cat([rows.amin(1) for rows in apart])
    empty = torch.stack([rows.amin(0) for rows in apart]).amin(0)
    if outside.max() > covering(distribution, FRESH, SURE) and not distribution.left_out:
        raise ValueError(
            f"expected examples from the distribution, but example {int(outside.argmax())} is "
            f"{outside.max():.3g} away from the nearest of {FRESH} draws, too far to be in its "
            "support"
        )
    if empty.max() > covering(distribution, len(sample), SURE):
        raise ValueError(
            f"expected examples from the whole distribution, but none is within "
            f"{empty.max():.3g} of {[round(x, 3) for x in new[int(empty.argmax())].tolist()]}"
        )


def covering(distribution: DeltaGood, N: int, epsilon: float) -> float:
    """The radius with which N points cover a support; infinite where none is proved."""
    try:
        return distribution.radius(N, epsilon)
    except ValueError:
        return math.inf
