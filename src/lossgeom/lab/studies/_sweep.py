"""What the runs of a seed end with over the settings of a study, and claims about that."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import tyro

from lossgeom.lab import statistics as stats
from lossgeom.lab.studies._network import MeasuredOn, build
from lossgeom.lab.studies._solution import (
    ACCURACY,
    COMPARED,
    GAP,
    JACOBIAN,
    NOISY,
    SHARPNESS,
    TRAIN,
    Further,
    solve,
)
from lossgeom.lab.studies._study import SeedRecords, SeedRun, require
from lossgeom.recording.claim import Claim, Interval
from lossgeom.recording.ended import last_values
from lossgeom.recording.metric_figures import Outcome, Pair, Scatter
from lossgeom.recording.record import Record

Place = tuple[Any, ...]

NAMES = {  # in the names of claims, and in their statements
    SHARPNESS.name: ("sharpness", "sharpness"),
    JACOBIAN.name: ("jacobian", "Jacobian norm"),
    GAP: ("gap", "gap"),
    "variation_found": ("variation", "local variation of the Jacobian"),
}
ENDS = (SHARPNESS.name, JACOBIAN.name, GAP)
LEARNED = 0.5  # accuracy on the examples to train on, below which a run has learned nothing
BEATS: Interval = (0.05, math.inf)  # what one rank correlation is larger by than another

GLOSSARY = (
    "The gap is the difference between the losses on the examples to test on and on those to train "
    f"on. {NOISY} The Jacobian norm is the spectral norm of the Jacobian of the outputs in the "
    "inputs, in the mean over the examples to train on, or over the first measured_on of them; "
    "sharpness is the largest eigenvalue of the Hessian of the loss in the parameters."
)

# What the report draws of the studies that are like figures 2 to 4 of the paper
ROWS = (
    Outcome(SHARPNESS.name, "sharpness", log=True),
    Outcome(JACOBIAN.name, "mean Jacobian norm", log=True),
    Outcome(GAP, "gap", log=True),
)
PAIRS = (Pair(COMPARED.first, COMPARED.outcome), Pair(COMPARED.second, COMPARED.outcome))


def scatter(colour: str, size: str) -> Scatter:
    """The gap over sharpness, and over the Jacobian norm."""
    caption = "Seeds are drawn together; the claims compare the runs of one seed."
    return Scatter(PAIRS, colour, size, caption, compared=COMPARED)


@dataclass(frozen=True)
class Ends:
    """The last value of every metric, in the runs of one seed.

    None for a run that diverged, or that ends with fewer than half of the examples to train on
    right; whatever is asked of it is infinite.
    """

    seed: int
    runs: Mapping[Place, Mapping[str, float] | None]

    @classmethod
    def of(cls, seed: SeedRecords[Any]) -> Ends:
        """Read the records of a seed."""
        runs = dict[Place, Mapping[str, float] | None]()
        for place, record in seed.records.items():
            last = last_values(record)
            fails = record.status == "diverged" or last.get(TRAIN + ACCURACY, 1) < LEARNED
            runs[place] = None if fails else last
        return cls(seed.seed, runs)

    def at(self, place: Place, metric: str) -> float:
        """What a run ends with."""
        run = self.runs[place]
        return math.inf if run is None else run[metric]

    def change(self, metric: str, before: Place, after: Place) -> float:
        """The logarithm of how many times a metric is as large in one run as in another."""
        values = (self.at(place, metric) for place in (before, after))
        low, high = (math.log(value) if value > 0 else -math.inf for value in values)
        return high - low

    def only(self, chosen: Mapping[int, Sequence[Any]]) -> Ends:
        """The runs that have one of some values in places of their settings."""
        return replace(
            self,
            runs={
                place: run
                for place, run in self.runs.items()
                if all(place[axis] in values for axis, values in chosen.items())
            },
        )

    def trend(self, metric: str, axis: int) -> float:
        """Rank correlation with a setting; its mean over the values of the other settings."""
        lines: dict[Place, list[Place]] = {}
        for place in self.runs:
            lines.setdefault((*place[:axis], *place[axis + 1 :]), []).append(place)
        return stats.mean(
            stats.rank_correlation(
                [place[axis] for place in line], [self.at(place, metric) for place in line]
            )
            for line in lines.values()
        )

    def correlation(self, x: str, y: str) -> float:
        """Rank correlation over the runs, without those that diverged or learned nothing."""
        runs = [run for run in self.runs.values() if run is not None]
        return stats.rank_correlation([run[x] for run in runs], [run[y] for run in runs])

    def shuffled(self) -> Ends:
        """The same runs with the ends of each other, in an order drawn by the seed."""
        ends = list(self.runs.values())
        order = np.random.default_rng(self.seed).permutation(len(ends))
        return replace(self, runs=dict(zip(self.runs, (ends[i] for i in order), strict=True)))


def trends(
    seeds: Sequence[Ends],
    axis: int,
    expected: Mapping[str, Interval],
    *,
    cause: str,
    of: str,
    ending: str = "",
    **parts: Any,
) -> Iterator[Claim]:
    """Claim that metrics of ``NAMES`` at the end of runs rise, or fall, with a setting.

    In a run that diverged or learned nothing they count as infinite.
    """
    failed = sum(run is None for seed in seeds for run in seed.runs.values())
    note = f"Runs that diverged or learned nothing, and count as infinite: {failed}."
    for metric, inside in expected.items():
        verb, size = ("rises", "larger") if inside[0] > 0 else ("falls", "smaller")
        name, label = NAMES[metric]
        yield stats.claim_of_seeds(
            f"{name}_{verb}{ending}",
            statement=f"{cause} gives a {size} {label}.",
            of=f"rank correlation of the {label} at the end with {of}",
            values=[seed.trend(metric, axis) for seed in seeds],
            inside=inside,
            note=note if failed else "",
            **parts,
        )


def shuffled(seeds: Sequence[Ends], axis: int, inside: Interval, *, cause: str, of: str) -> Claim:
    """The negative control: the gap of another run goes with a setting, too."""
    size = "larger" if inside[0] > 0 else "smaller"
    return stats.control(
        stats.claim_of_seeds,
        "shuffled",
        statement=f"{cause} gives a {size} gap of another run, drawn at random.",
        of=f"rank correlation of the gap of another run with {of}",
        values=[seed.shuffled().trend(GAP, axis) for seed in seeds],
        inside=inside,
    )


def jacobian_beats_sharpness(seeds: Sequence[Ends], source: str) -> Claim:
    """The claim that the gap goes with the Jacobian norm more closely than with sharpness."""
    norm, sharp = ([seed.correlation(m.name, GAP) for seed in seeds] for m in (JACOBIAN, SHARPNESS))
    return stats.claim_of_seeds(
        "jacobian_beats_sharpness",
        statement="The gap goes with the Jacobian norm more closely than with sharpness.",
        source=source,
        of="rank correlation of the Jacobian norm with the gap over the runs of a seed, without "
        "those that diverged or learned nothing, less that of sharpness",
        values=[a - b for a, b in zip(norm, sharp, strict=True)],
        inside=BEATS,
        note=stats.means({"Jacobian norm": norm, "sharpness": sharp}, ".2f"),
    )


# How the networks of all runs are trained


@dataclass(frozen=True)
class SgdSettings:
    """What all runs of a study have in common."""

    epochs: int = 100
    """How often all examples are gone through."""
    momentum: float = 0.9
    """How much of the last steps is kept in a step."""
    measurements: int = 5
    """Measurements along training."""
    measured_on: MeasuredOn = 0

    def __post_init__(self) -> None:
        names = "epochs", "measurements"
        require(self, min(self.epochs, self.measurements) >= 1, "1 or more", *names)
        require(self, self.measured_on >= 0, "0 or more", "measured_on")


SGD = SgdSettings()
Sgd = Annotated[SgdSettings, tyro.conf.arg(name="")]  # whose flags have no prefix


def train_and_measure(
    run: SeedRun[Any],
    record: Record,
    further: Further = lambda problem: (),  # noqa: ARG005
) -> None:
    """Train by the recipe of a run, and measure the solution."""
    study, network = run.study, run.study.network
    model, data = build(network, run.seed)
    recipe = study.recipe(**run.place)
    every = -(-recipe.steps(network.examples) // study.sgd.measurements)
    solve(
        recipe, model, data, record, seed=run.seed, chunk=network.chunk, every=every,
        measured_on=study.sgd.measured_on, further=further,
    )  # fmt: skip


def steps(run: SeedRun[Any]) -> int:
    """How many a run has."""
    return int(run.study.recipe(**run.place).steps(run.study.network.examples))


def check_rates(study: Any, fewest: int) -> None:
    """Raise unless a study has so many learning rates, which are positive and increase."""
    fine = increase(study.lr, fewest) and all(0 < lr < math.inf for lr in study.lr)
    require(study, fine, f"{fewest} or more learning rates > 0, increasing", "lr")


def increase(levels: Sequence[float], fewest: int = 3) -> bool:
    """Whether there are so many, each larger than those before it."""
    return len(levels) >= fewest and list(levels) == sorted(set(levels))
