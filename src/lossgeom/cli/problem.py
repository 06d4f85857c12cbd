"""The problem that a command line describes: a model, its data and its loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

import torch
import tyro
from torch import nn

from lossgeom.cli.arguments import choices, named, optional
from lossgeom.cli.user_code import FactoryError, explained, make
from lossgeom.problem import NonFiniteError, Problem
from lossgeom.problem.model_facts import MODES, Mode

LossName = Literal[
    "cross_entropy", "token_cross_entropy", "next_token_cross_entropy", "squared_error"
]


FUNCTIONS = """\
MODEL and DATA are functions of your own code, which is run: they are called without arguments.
  path/to/file.py:function    in a file
  package.module:function     in a module that is installed or below the current directory"""
OF_A_PROBLEM = ("data", "loss", "target", "mode", "seed", "parameters", "dtype")  # which it has


@dataclass(frozen=True)
class ProblemOptions:
    """A model with its data and loss, or a whole problem."""

    # None and () stand for options that were not given; beside a whole problem none may be given
    model: Annotated[str | None, tyro.conf.Positional, named("MODEL")] = None
    """Function that returns an nn.Module, or a whole lossgeom.Problem."""
    data: Annotated[str | None, tyro.conf.Positional, named("[DATA]")] = None
    """Function that returns batches: a list of (inputs, targets), a DataLoader or the like."""
    loss: Annotated[LossName | None, optional(choices(get_args(LossName)), "cross_entropy")] = None
    """Loss between what the model returns and the targets."""
    target: Annotated[str | None, optional("PLACE", "(inputs, targets), labels")] = None
    """The place of the targets in a batch, such as -1, or their key, if they are elsewhere."""
    mode: Annotated[Mode | None, optional(choices(MODES), "eval")] = None
    """Mode of the model, for BatchNorm, Dropout and the like; with --lr, say which was trained."""
    parameters: Annotated[tuple[str, ...], optional("GLOB [GLOB ...]", "all trainable")] = ()
    """Patterns of the names of the parameters to measure in, such as 'head.*'."""
    seed: Annotated[int | None, optional("INT")] = None
    """Seed of what the model draws at random, as Dropout does in train mode."""

    def factories(self) -> list[str]:
        """The functions that are named."""
        return [name for name in (self.model, self.data) if name is not None]

    def beside_model(self) -> list[str]:
        """The arguments that were given besides the model."""
        given = [name for name in OF_A_PROBLEM if vars(self).get(name) not in (None, ())]
        return ["DATA" if name == "data" else f"--{name}" for name in given]


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
        problem.on(problem.local.first_batch(), problem.network).loss()
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
    """Read a whole number as a place in a batch, and anything else as a key of it."""
    try:
        return None if target is None else int(target)
    except ValueError:
        return target


def _described(thing: Any) -> str:
    if isinstance(thing, type):
        return f"the class {thing.__name__}"
    return "None" if thing is None else f"an object of type {type(thing).__name__}"
