"""What the records say of the statements."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from lossgeom.lab import statistics as stats
from lossgeom.lab.correlation_claims import claim_of_correlation
from lossgeom.lab.studies._solution import GAP, JACOBIAN, LABEL_GAP, LOSS, SHARPNESS, TRAIN
from lossgeom.lab.studies._study import SeedRecords
from lossgeom.lab.studies._sweep import ENDS, NAMES, Ends, Place
from lossgeom.lab.studies.regularisers.config import BATCH, DECAY, NONE, REGULARISERS, Config
from lossgeom.recording.claim import Claim, Interval
from lossgeom.recording.ended import ended

PAPER_A = "MacDonald et al., arXiv:2305.14683, figure 5"
OURS = "after MacDonald et al., arXiv:2305.14683, figure 5"

# What each statement expects of its statistic, fixed before the seeds of the study were run.
GOES_ALONG: Interval = (0.5, math.inf)  # rank correlation of a seed
POSITIVE: Interval = (0.0, 2.0)  # difference of correlations, or a partial one, over seeds
LOWER: Interval = (0.0, 1.0)  # ratio
HIGHER: Interval = (1.0, math.inf)

LABELS = {
    SHARPNESS.name: "sharpness",
    JACOBIAN.name: "the Jacobian norm",
    GAP: "the gap",
    LABEL_GAP: "the gap of the loss without label smoothing",
}
Pairs = Sequence[tuple[Place, Place]]  # of a learning rate, a technique and a strength


def claims(config: Config, records: Sequence[SeedRecords[Config]]) -> Iterator[Claim]:
    """The verdicts."""
    seeds = [Ends.of(each) for each in records]
    for gap in (GAP, LABEL_GAP):
        yield from _over_all(records, seeds, gap)
    yield stats.claim_of_seeds(
        "jacobian_within_label_smoothing",
        statement=f"The Jacobian norm goes with {LABELS[LABEL_GAP]} where only label smoothing and "
        "the learning rate differ.",
        source=OURS,
        of=f"rank correlation of the mean Jacobian norm and {LABELS[LABEL_GAP]} over the runs "
        "with label smoothing and those with nothing",
        values=[
            each.only({1: (NONE, "label_smoothing")}).correlation(JACOBIAN.name, LABEL_GAP)
            for each in seeds
        ],
        inside=GOES_ALONG,
    )
    for name in REGULARISERS:
        yield from _regulariser(config, seeds, name)
    yield from _rise_again(config, seeds)
    yield from _controls(config, seeds)


def _over_all(
    records: Sequence[SeedRecords[Config]], seeds: Sequence[Ends], gap: str
) -> Iterator[Claim]:
    runs = ended([record for seed in records for record in seed.records.values()])
    norm, label = JACOBIAN.name, LABELS[gap]
    found = {LABELS[x]: [e.correlation(x, gap) for e in seeds] for x in (norm, SHARPNESS.name)}
    yield stats.claim_of_seeds(
        f"jacobian_goes_with_{gap}",
        statement=f"A smaller Jacobian norm goes with a smaller {label.removeprefix('the ')}.",
        source=PAPER_A,
        of=f"rank correlation of the mean Jacobian norm and {label} over all runs",
        values=found[LABELS[norm]],
        inside=GOES_ALONG,
        note=stats.means(found, ".2f"),
    )
    yield claim_of_correlation(
        f"jacobian_beats_sharpness_for_{gap}",
        statement=f"The Jacobian norm goes with {label} better than sharpness does.",
        source=PAPER_A,
        measured=f"rank correlation of {label} with the mean Jacobian norm, less that with "
        "sharpness, over all runs",
        found=runs.difference(norm, SHARPNESS.name, gap),
        expected=POSITIVE,
    )
    yield claim_of_correlation(
        f"jacobian_goes_with_{gap}_at_equal_loss",
        statement=f"The Jacobian norm goes with {label} at equal training loss, too.",
        source=OURS,
        measured=f"rank correlation of the mean Jacobian norm and {label} over all runs, given "
        "the training loss",
        found=runs.correlation(norm, gap, given=TRAIN + LOSS),
        expected=POSITIVE,
    )


def _regulariser(config: Config, seeds: Sequence[Ends], name: str) -> Iterator[Claim]:
    """Whether it lowers each of three; of sharpness only SAM is to do so."""
    said = {"sam": "SAM", "jacobian_penalty": "A Jacobian penalty"}.get(
        name, name.replace("_", " ").capitalize()
    )
    least = config.common_decay if name == DECAY else -math.inf
    pairs = [
        ((lr, name, s), (lr, NONE, 0.0))
        for lr in config.lr
        for s in config.strengths(name)
        if s > least
    ]
    for metric in ENDS:
        lowers = metric != SHARPNESS.name or name == "sam"
        yield stats.claim_over_seeds(
            f"{name}_and_{NAMES[metric][0]}",
            statement=f"{said} {'lowers' if lowers else 'does not lower'} {LABELS[metric]}.",
            source=PAPER_A,
            measured=f"{LABELS[metric]} over that without it, geometric mean over learning rates "
            "and strengths",
            values=[ratio(each, metric, pairs) for each in seeds],
            expected=LOWER if lowers else HIGHER,
        )


def _rise_again(config: Config, seeds: Sequence[Ends]) -> Iterator[Claim]:
    lr = config.lr[-1]
    for name in ("mixup", "augmentation"):
        least, most = ((lr, name, config.strengths(name)[end]) for end in (0, -1))
        yield stats.claim_over_seeds(
            f"jacobian_rises_with_{name}",
            statement=f"With much {name}, the Jacobian norm on the examples themselves rises.",
            source=PAPER_A,
            measured=f"mean Jacobian norm at the largest strength of {name} over that at the "
            f"smallest, at lr = {lr:g}",
            values=[ratio(e, JACOBIAN.name, [(most, least)]) for e in seeds],
            expected=HIGHER,
        )


def _controls(config: Config, seeds: Sequence[Ends]) -> Iterator[Claim]:
    yield stats.control(
        stats.claim_of_seeds,
        "shuffled",
        statement="a smaller Jacobian norm of another run, drawn at random, goes with a smaller "
        "gap.",
        of="rank correlation of the gap and the mean Jacobian norm of another run",
        values=[shuffled(each) for each in seeds],
        inside=GOES_ALONG,
    )
    lr, large = config.lr[-1], config.batch_size[-1]
    yield stats.control(
        stats.claim_over_seeds,
        "larger_batch",
        statement="larger batches, which regularise less, lower the Jacobian norm.",
        measured=f"mean Jacobian norm at a batch size of {large} over that at "
        f"{config.common_batch}, at lr = {lr:g}",
        values=[ratio(e, JACOBIAN.name, [((lr, BATCH, large), (lr, NONE, 0.0))]) for e in seeds],
        expected=LOWER,
    )


def summary(config: Config, found: Sequence[Claim]) -> str:
    """The result in a sentence or two."""
    by_id = {claim.id: claim for claim in found}
    return (
        f"On {config.network.data} with {len(REGULARISERS)} regularisers, {stats.counted(found)} "
        "The rank correlation of the gap with the Jacobian norm is "
        f"{by_id['jacobian_beats_sharpness_for_gap'].statistic:.2f} above that with sharpness."
    )


def ratio(seed: Ends, metric: str, pairs: Pairs) -> float:
    """The geometric mean of a metric's ratios in pairs of runs; infinite where one diverged."""
    return math.exp(stats.mean(seed.change(metric, below, above) for above, below in pairs))


def shuffled(seed: Ends) -> float:
    """The rank correlation of the gap with the Jacobian norm of another run."""
    other = seed.shuffled()
    norms, gaps = (
        [ends.at(place, metric) for place in seed.runs]
        for ends, metric in ((other, JACOBIAN.name), (seed, GAP))
    )
    return stats.rank_correlation(norms, gaps)
