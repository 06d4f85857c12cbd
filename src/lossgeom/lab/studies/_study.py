"""What every study is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from lossgeom.claim import Claim
from lossgeom.recording.record import Record

FIRST_SEED = 10
"""Seeds 0 to 9 may have been looked at before the claims had the statistics that they have now."""


def fresh(seeds: int) -> range:
    """So many seeds that no statistic or threshold was chosen on."""
    return range(FIRST_SEED, FIRST_SEED + seeds)


@runtime_checkable
class RunConfig(Protocol):
    """The settings of one training run: a frozen dataclass with these two among its fields."""

    @property
    def name(self) -> str:
        """Folder of the run, unique within the study."""
        ...

    @property
    def steps(self) -> int:
        """Steps to train, for the progress bar."""
        ...


@dataclass(frozen=True)
class Study:
    """One claim family of one paper.

    Attributes:
        name: on the command line.
        title: over the report.
        source: the paper and the part of it.
        Config: frozen dataclass; its fields are the flags, its defaults the quick preset.
        paper: the paper's own settings.
        plan: the training runs for a config and a number of seeds.
        run: trains and measures one of them into its record, going on where that stopped.
        claims: verdicts from the records of finished and diverged runs.
        summary: the result in a sentence or two.
        figure: what the report draws along training, see
            :mod:`lossgeom.report.sections.trajectories`.
        scatter: what it draws of how runs end, see :mod:`lossgeom.report.sections.scatter`.
    """

    name: str
    title: str
    source: str
    Config: type[Any]
    paper: Any
    plan: Callable[[Any, int], Sequence[RunConfig]]
    run: Callable[[Any, Record], None]
    claims: Callable[[Any, Sequence[Record]], list[Claim]]
    summary: Callable[[Any, Sequence[Claim]], str]
    figure: dict[str, Any]
    scatter: dict[str, Any] | None = None
