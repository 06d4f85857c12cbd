"""What every study is, and the runs that it is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from operator import itemgetter
from typing import Any, Generic, TypeVar

from lossgeom.claim import Claim
from lossgeom.recording.for_report import Scatter, Trajectories
from lossgeom.recording.record import Record

Config = TypeVar("Config")

FIRST_SEED = 10
"""Seeds 0 to 9 may have been looked at before the claims had the statistics that they have now."""


@dataclass(frozen=True)
class SeedRun(Generic[Config]):
    """A run of a study that is planned.

    Attributes:
        name: of its folder, unique within the study.
        seed: of all that it draws.
        study: the settings of the study.
        steps: how many it has, for the progress bar.
        place: what tells it from the other runs of its seed, such as its learning rate. Figures are
            arranged by these settings.
    """

    name: str
    seed: int
    study: Config
    steps: int
    place: Mapping[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, Any]:
        """What identifies the run in its record."""
        return {**self.place, "seed": self.seed, "study": asdict(self)["study"]}


@dataclass(frozen=True)
class SeedRecords(Generic[Config]):
    """The records of all runs of one seed, by what tells these apart."""

    seed: int
    study: Config
    records: dict[Any, Record]

    def values(self, place: Any, metric: str) -> list[float]:
        """A metric along a run."""
        return self.records[place].series(metric)[1]

    def diverged(self, place: Any) -> bool:
        """Whether a run has."""
        return self.records[place].status == "diverged"


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
        figure: what the report draws along training.
        scatter: what it draws of how runs end.
    """

    name: str
    title: str
    source: str
    Config: type[Any]
    paper: Any
    plan: Callable[[Any, int], Sequence[SeedRun[Any]]]
    run: Callable[[SeedRun[Any], Record], None]
    claims: Callable[[Any, Sequence[Record]], list[Claim]]
    summary: Callable[[Any, Sequence[Claim]], str]
    figure: Trajectories
    scatter: Scatter | None = None


def fresh(seeds: int) -> range:
    """So many seeds that no statistic or threshold was chosen on."""
    return range(FIRST_SEED, FIRST_SEED + seeds)


def by_seed(
    study: Config, records: Sequence[Record], *keys: str, runs: int
) -> list[SeedRecords[Config]]:
    """Sort records by seed, and by some of their settings; only seeds that have all their runs."""
    found: dict[int, dict[Any, Record]] = {}
    for record in records:
        config = record.config
        found.setdefault(config["seed"], {})[itemgetter(*keys)(config)] = record
    return [SeedRecords(seed, study, of) for seed, of in sorted(found.items()) if len(of) == runs]


def require(settings: Any, ok: bool, expected: str, *names: str) -> None:
    """Raise a ValueError, with what was expected and what some settings are, unless it is so."""
    if not ok:
        got = ", ".join(f"{name} = {getattr(settings, name)}" for name in names)
        raise ValueError(f"expected {expected}; got {got}")
