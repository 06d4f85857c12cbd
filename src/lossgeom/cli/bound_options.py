"""What every bound on the command line has: options, and a way to compute it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from lossgeom.bounds import Bound
from lossgeom.cli.arguments import optional
from lossgeom.cli.checkpoint import CheckpointOptions
from lossgeom.problem import Problem
from lossgeom.recording.for_report import Trajectories

Row = tuple[int, str, float]  # an epoch, a metric and its value
Tell = Callable[[int, str], None]  # an epoch, and where the search is then


@dataclass(frozen=True)
class BoundOptions(CheckpointOptions):
    """A classifier, and where the bound goes."""

    out: Annotated[Path | None, optional("DIR", "runs/bound-MODEL[-FILE]")] = None
    """Folder for the record and the report. The same command computes and writes it again."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print the bound with all its numbers as JSON instead of as text."""


@dataclass(frozen=True)
class Prepared:
    """A bound that is ready to be computed: its options are read, and go together.

    Attributes:
        problem: whose error is bounded.
        notes: on how it was loaded.
        config: what identifies the bound besides its options.
        epochs: of the search for it.
        compute: the bound, the rows of this search, and what to print.
    """

    problem: Problem
    notes: list[str]
    config: dict[str, Any]
    epochs: int
    compute: Callable[[Tell], tuple[Bound, list[Row], str]]


@dataclass(frozen=True)
class BoundCommand:
    """A bound on the command line.

    Attributes:
        title: over its page, before what it is for.
        summary: a line on it.
        options: its flags.
        help: the text over them.
        prepare: reads and checks them.
        figure: what to draw of the search for it.
    """

    title: str
    summary: str
    options: type[BoundOptions]
    help: str
    prepare: Callable[[Any], Prepared]
    figure: Trajectories
