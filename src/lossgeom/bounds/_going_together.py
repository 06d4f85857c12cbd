"""Whether what is known of a trained model goes together."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lossgeom.bounds._given import Given, covering, fresh
from lossgeom.bounds.delta_good import DeltaGood
from lossgeom.messages.checks import check_number, check_whole
from lossgeom.messages.wording import unknown
from lossgeom.problem import NonFiniteError, Problem

COVERINGS = ("stated", "measured")
FRESH = 2000  # draws that a sample is compared with
ROWS = 4096  # of it at a time
SURE = 1e-6  # the probability that one from the distribution is refused
ROUNDED = 1e-5  # of data in float32, relative to the largest number


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
