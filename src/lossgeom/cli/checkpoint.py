"""The problem that a command line describes, at the weights of a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import torch
import tyro
from torch import nn

from lossgeom.checkpoints import load_checkpoint, sha256
from lossgeom.cli.arguments import choices, optional
from lossgeom.cli.problem import ProblemOptions, make_problem
from lossgeom.cli.user_code import explained
from lossgeom.problem import Problem

DtypeName = Literal["float32", "float64"]
DTYPES: dict[DtypeName, torch.dtype] = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class CheckpointOptions(ProblemOptions):
    """A problem, where its weights are, and on how much of its data."""

    checkpoint: Annotated[Path | None, optional("FILE")] = None
    """Weights: .safetensors, or a state dict in .pt, .pth, .bin, .ckpt or .tar, never run."""
    key: Annotated[str | None, optional("KEY", "the usual ones")] = None
    """Entry of the checkpoint that holds the weights."""
    examples: Annotated[int | None, optional("INT", "all")] = None
    """Number of examples to measure on, from the first."""
    dtype: Annotated[DtypeName | None, optional(choices([*DTYPES]), "the model's")] = None
    """Type of numbers to measure in, in a copy of the model."""
    out: Annotated[Path | None, optional("DIR", "runs/COMMAND-MODEL[-FILE]")] = None
    """Folder for the record and the report, where the same command goes on or writes them again."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print all numbers as JSON instead of as text."""

    def config(self, *other: str) -> dict[str, Any]:
        """The options that were given, but for others, with the hash of the checkpoint."""
        given, other = asdict(self).items(), ("out", "json", *other)
        config = {k: v for k, v in given if k not in other and v not in (None, ())}
        if self.checkpoint is not None:
            config["checkpoint"] = named_file(self.checkpoint)
        return config

    def folder(self, command: str) -> Path:
        """The folder of the record."""
        if self.out is not None:
            return self.out
        names = [command, str(self.model).rpartition(":")[2]]
        names += [] if self.checkpoint is None else [self.checkpoint.stem]
        return Path("runs", "-".join(names))

    def title(self, what: str) -> str:
        """What is measured of which model, with which weights."""
        at = "" if self.checkpoint is None else f" at {self.checkpoint.name}"
        return f"{what} {self.model}{at}"


def named_file(path: Path) -> str:
    """The name of a file with the hash of what it holds."""
    return f"{path.name}, sha256 {sha256(path)}"


def problem_at_checkpoint(
    options: CheckpointOptions, before: Callable[[nn.Module], None] = lambda _: None
) -> tuple[Problem, list[str]]:
    """The problem with the weights of the checkpoint, and notes on how they were loaded.

    Args:
        options: what was named.
        before: is called with the model before the checkpoint is loaded, if there is one.
    """
    if options.key is not None and options.checkpoint is None:
        raise ValueError("expected --checkpoint, too, with --key")
    notes: list[str] = []

    def load(model: nn.Module) -> None:
        before(model)
        notes.extend(load_checkpoint(model, cast(Path, options.checkpoint), key=options.key))

    dtype = None if options.dtype is None else DTYPES[options.dtype]
    problem = make_problem(options, dtype, None if options.checkpoint is None else load)
    if options.examples is not None:
        problem = problem.take(options.examples)
    with explained(f"{' and '.join(options.factories())} to give batches to measure on"):
        problem.local.over_batches(len)
    return problem, notes
