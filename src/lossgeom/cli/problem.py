"""The problem that a command line describes: a model, its data and its loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

import torch
import tyro
from torch import nn

from lossgeom.cli.user_code import FactoryError, explained, make
from lossgeom.problem import NonFiniteError, Problem
from lossgeom.problem.model_facts import MODES, Mode

LossName = Literal[
    "cross_entropy", "token_cross_entropy", "next_token_cross_entropy", "squared_error"
]


def _choices(names: tuple[str, ...]) -> str:
    return f"{{{','.join(names)}}}"


@dataclass(frozen=True)
class ProblemOptions:
    """A model with its data and loss, or a whole problem."""

    # None and () stand for options that were not given, which a whole problem does not go with
    model: Annotated[
        str | None, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL", help_behavior_hint="")
    ] = None
    """Function that returns an nn.Module, or a whole lossgeom.Problem."""
    data: Annotated[
        str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[DATA]", help_behavior_hint="")
    ] = None
    """Function that returns batches: a list of (inputs, targets), a DataLoader or their like."""
    loss: Annotated[
        LossName | None,
        tyro.conf.arg(
            metavar=_choices(get_args(LossName)), help_behavior_hint="(default: cross_entropy)"
        ),
    ] = None
    """Loss between what the model returns and the targets."""
    target: Annotated[
        str | None,
        tyro.conf.arg(metavar="PLACE", help_behavior_hint="(default: (inputs, targets), labels)"),
    ] = None
    """Where in a batch the targets are, if not there: a place such as -1, or a key."""
    mode: Annotated[
        Mode | None,
        tyro.conf.arg(metavar=_choices(MODES), help_behavior_hint="(default: eval)"),
    ] = None
    """Mode of the model, for BatchNorm, Dropout and their like; name that of training with --lr."""
    parameters: Annotated[
        tuple[str, ...],
        tyro.conf.arg(metavar="GLOB [GLOB ...]", help_behavior_hint="(default: all trainable)"),
    ] = ()
    """Patterns of the names of the parameters to measure in, such as 'head.*'."""
    seed: Annotated[
        int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: none)")
    ] = None
    """Fixes what the model draws at random, as Dropout does in train mode."""

    def factories(self) -> list[str]:
        """The functions that are named."""
        return [name for name in (self.model, self.data) if name is not None]

    def beside_model(self) -> list[str]:
        """The arguments that were given besides the model."""
        given = {
            "DATA": self.data,
            "--loss": self.loss,
            "--target": self.target,
            "--mode": self.mode,
            "--seed": self.seed,
        }
        parameters = ["--parameters"] if self.parameters else []
        return [name for name, value in given.items() if value is not None] + parameters


def make_problem(
    options: ProblemOptions,
    dtype: torch.dtype | None = None,
    prepare: Callable[[nn.Module], None] | None = None,
) -> Problem:
    """Call the functions that were named, and evaluate what they make once, on the first batch.

    A loss that is NaN or infinite there is for the caller to find.

    Args:
        options: what was named.
        dtype: to measure in; a whole problem has its own.
        prepare: is called with the model before it is evaluated.

    Raises:
        FactoryError: if they cannot be called, make the wrong things, or do not go together.
    """
    if options.model is None:
        raise FactoryError(
            "expected a function that returns the model: MODEL [DATA], such as net.py:model "
            "net.py:data"
        )
    made = make(options.model)
    if isinstance(made, Problem) and options.beside_model():
        raise FactoryError(
            f"{options.model} returns a Problem, which has data, loss and settings of its own; "
            f"leave out {', '.join(options.beside_model())}"
        )
    problem = made if isinstance(made, Problem) else _composed(options, options.model, made, dtype)
    if prepare is not None:
        prepare(problem.model)
        problem = problem.refreshed()
    expected = f"{' and '.join(options.factories())} to give a loss that can be evaluated"
    with suppress(NonFiniteError), explained(expected, but=(NonFiniteError,)):
        problem.on(problem.first_batch(), problem.network).loss()
    return problem


def _composed(options: ProblemOptions, name: str, model: Any, dtype: torch.dtype | None) -> Problem:
    if not isinstance(model, nn.Module):
        raise FactoryError(
            f"expected {name} to return an nn.Module or a lossgeom.Problem, got "
            f"{_described(model)}; return the model itself"
        )
    if options.data is None:
        raise FactoryError(
            f"expected DATA, too, because {name} returns {_described(model)} and no Problem; name "
            "a function that returns batches, such as net.py:data"
        )
    batches = make(options.data)
    if isinstance(batches, Iterator) or not isinstance(batches, Iterable):
        raise FactoryError(
            f"expected {options.data} to return batches that can be iterated again and again, got "
            f"{_described(batches)}; return a list or a DataLoader"
        )
    try:
        return Problem(
            model,
            options.loss or "cross_entropy",
            batches,
            target=_place(options.target),
            mode=options.mode,
            parameters=options.parameters or None,
            seed=options.seed,
            dtype=dtype,
        )
    except TypeError as error:  # which says what was expected, but is no usage error elsewhere
        raise FactoryError(str(error)) from error


def _place(target: str | None) -> int | str | None:
    """A number as a place, anything else as a key."""
    try:
        return None if target is None else int(target)
    except ValueError:
        return target


def _described(thing: Any) -> str:
    if isinstance(thing, type):
        return f"the class {thing.__name__}"
    return "None" if thing is None else f"an object of type {type(thing).__name__}"
