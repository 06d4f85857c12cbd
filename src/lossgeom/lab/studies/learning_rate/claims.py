"""What the records say of the statements."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from lossgeom.lab.statistics import counted
from lossgeom.lab.studies._study import SeedRecords
from lossgeom.lab.studies._sweep import ENDS, Ends, jacobian_beats_sharpness, shuffled, trends
from lossgeom.lab.studies.learning_rate.config import Config
from lossgeom.recording.claim import Claim, Interval

PAPER_A = "MacDonald et al., arXiv:2305.14683, figure 3"

# What each statement expects of its statistic, fixed before the seeds of the study were run.
FALLS: Interval = (-math.inf, -0.8)  # rank correlation with the learning rate

RATE = 1  # the place of the learning rate among the settings
CAUSE, OF = "A larger learning rate", "the learning rate, averaged over batch sizes"


def claims(config: Config, records: Sequence[SeedRecords[Config]]) -> Iterator[Claim]:  # noqa: ARG001
    """The verdicts."""
    seeds = [Ends.of(each) for each in records]
    yield from trends(seeds, RATE, dict.fromkeys(ENDS, FALLS), cause=CAUSE, of=OF, source=PAPER_A)
    yield jacobian_beats_sharpness(seeds, PAPER_A)
    yield shuffled(seeds, RATE, FALLS, cause=CAUSE.lower(), of=OF)


def summary(config: Config, found: Sequence[Claim]) -> str:
    """The result in a sentence or two."""
    return f"On {config.network.data} with SGD, {counted(found)}"
