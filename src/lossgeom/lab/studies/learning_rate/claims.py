"""What the records say of the statements."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from lossgeom.claim import Claim, Interval
from lossgeom.lab import statistics as stats
from lossgeom.lab.studies._solution import GAP
from lossgeom.lab.studies._study import SeedRecords
from lossgeom.lab.studies._sweep import IDS, LABELS, Ends, claim_of_correlations, claim_of_trend
from lossgeom.lab.studies.learning_rate.config import Config

PAPER_A = "MacDonald et al., arXiv:2305.14683, figure 3"

# What each statement expects of its statistic, fixed before the seeds of the study were run.
FALLS: Interval = (-math.inf, -0.8)  # rank correlation with the learning rate
LR = 1  # the place of the learning rate among the settings
OF = "the learning rate, averaged over batch sizes"


def claims(config: Config, records: Sequence[SeedRecords[Config]]) -> Iterator[Claim]:  # noqa: ARG001
    """The verdicts."""
    seeds = [Ends.of(each) for each in records]
    for metric, label in LABELS.items():
        yield claim_of_trend(
            f"{IDS[metric]}_falls",
            statement=f"A larger learning rate gives a smaller {label}.",
            source=PAPER_A,
            seeds=seeds, metric=metric, axis=LR, of=OF, inside=FALLS,
        )  # fmt: skip
    yield claim_of_correlations(seeds, PAPER_A)
    yield stats.control(
        claim_of_trend,
        "shuffled",
        statement="a larger learning rate gives a smaller gap of another run, drawn at random.",
        seeds=[seed.shuffled() for seed in seeds], metric=GAP, axis=LR, of=OF, inside=FALLS,
    )  # fmt: skip


def summary(config: Config, found: Sequence[Claim]) -> str:
    """The result in a sentence or two."""
    return f"On {config.network.data} with SGD, {stats.counted(found)}"
