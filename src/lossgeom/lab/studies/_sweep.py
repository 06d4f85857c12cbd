"""What the runs of a seed end with over the settings of a study, and claims about that."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lossgeom.claim import Claim, Interval
from lossgeom.lab import statistics as stats
from lossgeom.lab.studies._solution import ACCURACY, COMPARED, GAP, JACOBIAN, SHARPNESS, TRAIN
from lossgeom.lab.studies._study import SeedRecords
from lossgeom.recording.metric_figures import Outcome, Pair, Scatter

Place = tuple[Any, ...]
Where = Callable[[Place], bool]

LABELS = {
    SHARPNESS.name: "sharpness", JACOBIAN.name: "Jacobian norm", GAP: "generalisation gap",
}  # fmt: skip
IDS = {SHARPNESS.name: "sharpness", JACOBIAN.name: "jacobian", GAP: "gap"}
LEARNED = 0.5  # accuracy on the examples to train on, below which a run has learned nothing
BEATS: Interval = (0.05, math.inf)  # what one rank correlation is larger by than another

# What the report draws of the studies that are like figures 2 to 4 of the paper
ROWS = (
    Outcome(SHARPNESS.name, "sharpness", log=True),
    Outcome(JACOBIAN.name, "mean Jacobian norm"),
    Outcome(GAP, "generalisation gap"),
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
            last = {row["metric"]: row["value"] for row in record.rows()}
            fails = record.status == "diverged" or last.get(TRAIN + ACCURACY, 1) < LEARNED
            runs[place] = None if fails else last
        return cls(seed.seed, runs)

    def at(self, place: Place, metric: str) -> float:
        """What a run ends with."""
        run = self.runs[place]
        return math.inf if run is None else run[metric]

    def trend(self, metric: str, axis: int, where: Where = lambda place: True) -> float:  # noqa: ARG005
        """Rank correlation with a setting; its mean over the values of the other settings."""
        lines: dict[Place, list[Place]] = {}
        for place in filter(where, self.runs):
            lines.setdefault((*place[:axis], *place[axis + 1 :]), []).append(place)
        return stats.mean(
            stats.rank_correlation(
                [place[axis] for place in line], [self.at(place, metric) for place in line]
            )
            for line in lines.values()
        )

    def correlation(self, x: str, y: str, where: Where = lambda place: True) -> float:  # noqa: ARG005
        """Rank correlation over the runs, without those that diverged or learned nothing."""
        runs = [run for place, run in self.runs.items() if run is not None and where(place)]
        return stats.rank_correlation([run[x] for run in runs], [run[y] for run in runs])

    def shuffled(self) -> Ends:
        """The same runs with the ends of each other, in an order drawn by the seed."""
        ends = list(self.runs.values())
        order = np.random.default_rng(self.seed).permutation(len(ends))
        return replace(self, runs=dict(zip(self.runs, (ends[i] for i in order), strict=True)))


def claim_of_trend(
    name: str,
    *,
    seeds: Sequence[Ends],
    metric: str,
    axis: int,
    of: str,
    where: Where = lambda place: True,  # noqa: ARG005
    **parts: Any,
) -> Claim:
    """Make a claim about the direction in which what runs end with goes with a setting."""
    failed = sum(run is None for seed in seeds for place, run in seed.runs.items() if where(place))
    note = f"{failed} runs diverged or learned nothing, and count as infinite." if failed else ""
    return stats.claim_of_seeds(
        name,
        values=[seed.trend(metric, axis, where) for seed in seeds],
        of=f"rank correlation of the {LABELS.get(metric, metric)} at the end with {of}",
        note=note,
        **parts,
    )


def claim_of_correlations(seeds: Sequence[Ends], source: str) -> Claim:
    """Make the claim that the gap goes with the Jacobian norm more closely than with sharpness."""
    found = {
        metric.name: [seed.correlation(metric.name, GAP) for seed in seeds]
        for metric in (JACOBIAN, SHARPNESS)
    }
    return stats.claim_of_seeds(
        "jacobian_beats_sharpness",
        statement="The gap goes with the Jacobian norm more closely than with sharpness.",
        source=source,
        of="rank correlation of the Jacobian norm with the gap over the runs of a seed, without "
        "those that diverged or learned nothing, less that of sharpness",
        values=[a - b for a, b in zip(*found.values(), strict=True)],
        inside=BEATS,
        note=stats.means({LABELS[name]: values for name, values in found.items()}, ".2f"),
    )


def increase(levels: Sequence[float]) -> bool:
    """Whether there are three or more, each larger than those before it."""
    return len(levels) >= 3 and list(levels) == sorted(set(levels))
