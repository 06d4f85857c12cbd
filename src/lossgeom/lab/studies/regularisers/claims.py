"""What the records say of the statements."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from lossgeom.claim import Claim, Interval
from lossgeom.lab import statistics as stats
from lossgeom.lab.correlation_claims import claim_of_correlation
from lossgeom.lab.studies._solution import GAP, JACOBIAN, LABEL_GAP, LOSS, SHARPNESS, TRAIN
from lossgeom.lab.studies._study import SeedRecords
from lossgeom.lab.studies.regularisers.config import (
    BATCH_SIZE,
    NONE,
    REGULARISERS,
    WEIGHT_DECAY,
    Config,
)
from lossgeom.recording.ended import ended, last_values

PAPER_A = "MacDonald et al., arXiv:2305.14683, figure 5"
OURS = "derived here, after MacDonald et al., arXiv:2305.14683, figure 5"

# What each statement expects of its statistic, fixed before the seeds of the study were run.
GOES_ALONG: Interval = (0.5, math.inf)  # rank correlation of a seed
POSITIVE: Interval = (0.0, 2.0)  # difference of correlations, or a partial one, over seeds
LOWER: Interval = (0.0, 1.0)  # ratio
HIGHER: Interval = (1.0, math.inf)

GAPS = {GAP: "the gap", LABEL_GAP: "the gap of the loss without label smoothing"}
KNOWN_TO_RISE = "mixup", "augmentation"

Seed = SeedRecords[Config]
Place = tuple[float, str, float]  # learning rate, technique, strength
Ends = dict[Place, dict[str, float]]  # the last of every metric
Pairs = Sequence[tuple[Place, Place]]


def claims(config: Config, seeds: Sequence[Seed]) -> Iterator[Claim]:
    """The verdicts."""
    ends = [ends_of(seed) for seed in seeds]
    yield from _over_all(seeds, ends)
    yield _label_smoothing_alone(ends)
    for technique in REGULARISERS:
        yield from _technique(config, ends, technique)
    yield from (_rises_again(config, ends, technique) for technique in KNOWN_TO_RISE)
    yield from _controls(config, ends, seeds)


def _over_all(seeds: Sequence[Seed], ends: Sequence[Ends]) -> Iterator[Claim]:
    runs = ended([record for seed in seeds for record in seed.records.values()])
    for gap, name in GAPS.items():
        found = [[correlation(each, x.name, gap) for each in ends] for x in (JACOBIAN, SHARPNESS)]
        yield stats.claim_of_seeds(
            f"jacobian_goes_with_{gap}",
            statement=f"A smaller Jacobian norm goes with a smaller value of {name}.",
            source=PAPER_A,
            of=f"rank correlation of the mean Jacobian norm and {name} over all runs",
            values=found[0],
            inside=GOES_ALONG,
            note=stats.means({"Jacobian norm": found[0], "sharpness": found[1]}),
        )
        yield claim_of_correlation(
            f"jacobian_beats_sharpness_for_{gap}",
            statement=f"The Jacobian norm goes with {name} much better than sharpness does.",
            source=PAPER_A,
            measured=f"rank correlation of {name} with the mean Jacobian norm, less that with "
            "sharpness, over all runs",
            found=runs.difference(JACOBIAN.name, SHARPNESS.name, gap),
            expected=POSITIVE,
        )
        yield claim_of_correlation(
            f"jacobian_goes_with_{gap}_at_equal_loss",
            statement=f"It goes with {name} at equal training loss, too.",
            source=OURS,
            measured=f"rank correlation of the mean Jacobian norm and {name} over all runs, given "
            "the training loss",
            found=runs.correlation(JACOBIAN.name, gap, given=TRAIN + LOSS),
            expected=POSITIVE,
        )


def _label_smoothing_alone(ends: Sequence[Ends]) -> Claim:
    return stats.claim_of_seeds(
        "jacobian_within_label_smoothing",
        statement="It does so where only label smoothing differs, and the learning rate.",
        source=OURS,
        of=f"rank correlation of the mean Jacobian norm and {GAPS[LABEL_GAP]} over the runs with "
        "label smoothing and the plain ones",
        values=[
            correlation(
                {
                    place: end
                    for place, end in each.items()
                    if place[1] in (NONE, "label_smoothing")
                },
                JACOBIAN.name,
                LABEL_GAP,
            )
            for each in ends
        ],
        inside=GOES_ALONG,
    )


def _technique(config: Config, ends: Sequence[Ends], technique: str) -> Iterator[Claim]:
    said = "SAM" if technique == "sam" else technique.replace("_", " ").capitalize()
    pairs = [
        ((lr, technique, strength), (lr, NONE, 0.0))
        for lr in config.lr
        for strength in config.strengths(technique)
        if technique != WEIGHT_DECAY or strength > config.common_decay
    ]
    made = partial(stats.claim_over_seeds, source=PAPER_A)
    of = "{} over that of the run without, geometric mean over learning rates and strengths"
    lowers = technique == "sam"
    yield made(
        f"{technique}_and_sharpness",
        statement=f"{said} {'lowers' if lowers else 'does not lower'} sharpness.",
        measured=of.format("sharpness"),
        values=[ratio(each, SHARPNESS.name, pairs) for each in ends],
        expected=LOWER if lowers else HIGHER,
    )
    yield made(
        f"{technique}_and_jacobian",
        statement=f"{said} lowers the Jacobian norm.",
        measured=of.format("mean Jacobian norm"),
        values=[ratio(each, JACOBIAN.name, pairs) for each in ends],
        expected=LOWER,
    )
    yield made(
        f"{technique}_and_gap",
        statement=f"{said} lowers the gap.",
        measured=of.format("gap"),
        values=[ratio(each, GAP, pairs) for each in ends],
        expected=LOWER,
        note=stats.means({GAPS[LABEL_GAP]: [ratio(each, LABEL_GAP, pairs) for each in ends]})
        if technique == "label_smoothing"
        else "",
    )


def _rises_again(config: Config, ends: Sequence[Ends], technique: str) -> Claim:
    lr, strengths = config.lr[-1], config.strengths(technique)
    first, last = ((lr, technique, s) for s in (strengths[0], strengths[-1]))
    return stats.claim_over_seeds(
        f"jacobian_rises_with_{technique}",
        statement=f"With much {technique}, the Jacobian norm on the examples themselves rises.",
        source=PAPER_A,
        measured=f"mean Jacobian norm at the largest strength of {technique} over that at the "
        f"smallest, at lr = {lr:g}",
        values=[ratio(each, JACOBIAN.name, [(last, first)]) for each in ends],
        expected=HIGHER,
    )


def _controls(config: Config, ends: Sequence[Ends], seeds: Sequence[Seed]) -> Iterator[Claim]:
    yield stats.control(
        stats.claim_of_seeds,
        "shuffled",
        statement="a smaller Jacobian norm of another run goes with a smaller gap.",
        of="rank correlation of the gap and the mean Jacobian norm of another run, in an order "
        "drawn by the seed",
        values=[
            correlation(each, JACOBIAN.name, GAP, np.random.default_rng(seed.seed))
            for each, seed in zip(ends, seeds, strict=True)
        ],
        inside=GOES_ALONG,
    )
    lr, large = config.lr[-1], config.batch_size[-1]
    pair = (lr, BATCH_SIZE, large), (lr, NONE, 0.0)
    yield stats.control(
        stats.claim_over_seeds,
        "larger_batch",
        statement="larger batches, which regularise less, lower the Jacobian norm.",
        measured=f"mean Jacobian norm at a batch size of {large} over that at "
        f"{config.common_batch}, at lr = {lr:g}",
        values=[ratio(each, JACOBIAN.name, [pair]) for each in ends],
        expected=LOWER,
    )


def summary(config: Config, found: Sequence[Claim]) -> str:
    """The result in a sentence or two."""
    by_id = {claim.id: claim for claim in found}
    return (
        f"On {config.network.data} with {len(REGULARISERS)} regularisers, "
        f"{stats.counted(found)} The rank correlation of the gap with the Jacobian norm is "
        f"{by_id['jacobian_beats_sharpness_for_gap'].statistic:.2f} above that with sharpness."
    )


# The statistics of a seed


def ends_of(seed: Seed) -> Ends:
    """What its runs end with, of those that do not diverge."""
    return {
        place: last_values(record)
        for place, record in seed.records.items()
        if not seed.diverged(*place)
    }


def correlation(ends: Ends, x: str, y: str, shuffled: np.random.Generator | None = None) -> float:
    """Rank correlation over runs."""
    xs, ys = ([end[name] for end in ends.values()] for name in (x, y))
    return stats.rank_correlation(shuffled.permutation(xs).tolist() if shuffled else xs, ys)


def ratio(ends: Ends, metric: str, pairs: Pairs) -> float:
    """The geometric mean of a metric's ratios in pairs of runs that both end; NaN for none."""
    found = [
        math.log(ends[one][metric] / ends[other][metric])
        for one, other in pairs
        if one in ends and other in ends
    ]
    return math.exp(stats.mean(found))
