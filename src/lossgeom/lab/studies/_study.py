"""Studies, the runs that they are made of, and the records of these."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import cycle, product
from typing import Any, Generic, TypeVar

from lossgeom.recording.claim import Claim
from lossgeom.recording.ended import series_of
from lossgeom.recording.json_files import plain
from lossgeom.recording.metric_figures import Scatter, Sweep, Trajectories
from lossgeom.recording.record import Record

Config = TypeVar("Config")

LONG = 120  # characters of the name of a folder that people still read
FIRST_SEED = 10
"""Seeds 0 to 9 may have been looked at before the claims had the statistics that they have now."""


@dataclass(frozen=True)
class SeedRun(Generic[Config]):
    """A run of a study that is planned.

    Attributes:
        name: of its folder, unique within the study.
        seed: of all that it draws.
        study: the settings of the study.
        place: what tells it from the other runs of its seed, such as its learning rate.
    """

    name: str
    seed: int
    study: Config
    place: Mapping[str, Any]

    @property
    def settings(self) -> dict[str, Any]:
        """What identifies the run in its record."""
        return {**self.place, "seed": self.seed, "study": asdict(self)["study"]}

    @property
    def hashed(self) -> str:
        """A name that no other settings have, where those that people read are alike or long."""
        content = json.dumps(plain(self.settings), sort_keys=True).encode()
        return f"{self.name[: LONG // 2]}-{hashlib.sha256(content).hexdigest()[:12]}"


@dataclass(frozen=True)
class SeedRecords(Generic[Config]):
    """The records of all runs of one seed, by what tells these apart."""

    seed: int
    study: Config
    records: dict[tuple[Any, ...], Record]

    @cached_property
    def series(self) -> dict[tuple[Any, ...], dict[str, list[float]]]:
        """The values along each run of every metric, which are read once."""
        return {place: series_of(record.rows()) for place, record in self.records.items()}

    def at(self, *place: Any) -> Record:
        """The record of a run."""
        return self.records[place]

    def diverged(self, *place: Any) -> bool:
        """Whether a run has diverged."""
        return self.at(*place).status == "diverged"


def _one_run(config: Any) -> Mapping[str, Sequence[Any]]:  # noqa: ARG001
    """The grid of a study with one run for each seed."""
    return {}


def _all(config: Any, place: Mapping[str, Any]) -> bool:  # noqa: ARG001
    """Plan every run of the grid."""
    return True


@dataclass(frozen=True)
class Study:
    """One claim family of one paper.

    Attributes:
        name: on the command line.
        title: over the report.
        source: the paper and the part of it.
        Config: frozen dataclass; its fields are the flags, its defaults the quick preset.
        paper: the paper's own settings.
        run: trains and measures one of them into its record, going on where that stopped.
        steps: how many a run has, for the progress bar.
        claims: verdicts from the records of the seeds all of whose runs are over.
        summary: the result in a sentence or two.
        glossary: what the words and symbols of its statements mean.
        grid: what tells the runs of a seed apart for a config: names with their values, each of
            which is run with every other. Figures are arranged by these names.
        planned: which of these runs there are, by the values of the grid; all by default.
        folder: of a run, such as ``"lr{lr}-seed{seed}"``.
        data: loads what ``network`` settings ask for with a seed, where that is not all classes.
        figure: what the report draws along training.
        scatter: what it draws of how runs end.
        sweep: what it draws over the settings of the grid.
    """

    name: str
    title: str
    source: str
    Config: type[Any]
    paper: Any
    run: Callable[[SeedRun[Any], Record], None]
    steps: Callable[[SeedRun[Any]], int]
    claims: Callable[[Any, Sequence[SeedRecords[Any]]], Iterable[Claim]]
    summary: Callable[[Any, Sequence[Claim]], str]
    glossary: str | None = None
    grid: Callable[[Any], Mapping[str, Sequence[Any]]] = _one_run
    planned: Callable[[Any, Mapping[str, Any]], bool] = _all
    folder: str = "seed{seed}"
    data: Callable[[Any, int], object] | None = None
    figure: Trajectories = field(default_factory=Trajectories)
    scatter: Scatter | None = None
    sweep: Sweep | None = None

    def places(self, config: Any) -> list[dict[str, Any]]:
        """What tells the runs of a seed apart, of each of them."""
        grid = self.grid(config)
        for name, values in grid.items():
            if len(set(values)) < len(values):
                raise ValueError(f"expected different values of {name}, got {list(values)}")
        every = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
        return [place for place in every if self.planned(config, place)]

    def plan(self, config: Any, seeds: int) -> list[SeedRun[Any]]:
        """All runs, seed by seed, for seeds that no statistic or threshold was chosen on."""
        places = self.places(config)
        runs = [
            SeedRun(self.folder.format(**place, seed=seed), seed, config, place)
            for seed in range(FIRST_SEED, FIRST_SEED + seeds)
            for place in places
        ]
        first = [run.name.casefold() for run in runs[: len(places)]]  # as some disks take names
        unclear = [first.count(name) > 1 or len(name) > LONG for name in first]
        return [
            replace(run, name=run.hashed) if hashed else run
            for run, hashed in zip(runs, cycle(unclear), strict=False)
        ]

    def judge(self, config: Any, records: Sequence[Record]) -> list[Claim]:
        """The verdicts, over the seeds that have a record of every run."""
        grid = self.grid(config)
        by_seed: dict[int, dict[tuple[Any, ...], Record]] = {}
        for record in records:
            place = tuple(record.config[name] for name in grid)
            by_seed.setdefault(record.config["seed"], {})[place] = record
        runs = len(self.places(config))
        seeds = (SeedRecords(seed, config, of) for seed, of in sorted(by_seed.items()))
        return list(self.claims(config, [seed for seed in seeds if len(seed.records) == runs]))


def require(settings: Any, ok: bool, expected: str, *names: str) -> None:
    """Raise a ValueError, with what was expected and what some settings are, unless it is so."""
    if not ok:
        got = ", ".join(f"{name} = {getattr(settings, name)}" for name in names)
        raise ValueError(f"expected {expected}; got {got}")
