"""What the records say of the statements."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from lossgeom.lab import statistics as stats
from lossgeom.lab.studies._stages import over_seeds
from lossgeom.lab.studies._study import SeedRecords
from lossgeom.lab.studies.sgd_stability.config import Config
from lossgeom.lab.studies.sgd_stability.minimum import LEFT, START
from lossgeom.lab.studies.sgd_stability.run import (
    MULTIPLES,
    name_of_end,
    name_of_start,
)
from lossgeom.recording.claim import Claim, Interval

PAPER_B = "Ma and Ying, arXiv:2105.13462"
EXACT = "Mulayoff and Michaeli, arXiv:2306.07850, theorem 3"
EDGE = "Andreyev and Beneventano, arXiv:2412.20553"
DERIVED = "derived here"

# What each statement expects of its statistic, fixed before the seeds of the study were run.
EQUAL: Interval = (-math.inf, 1e-8)  # relative difference
REPRODUCED: Interval = (-math.inf, 2e-3)  # relative difference of growth
JUST_ABOVE: Interval = (1.0, 1.5)  # threshold over learning rate
AT_THE_EDGE: Interval = (0.85, 1.2)  # batch sharpness over 2 / lr

Seeds = Sequence[SeedRecords[Config]]


def claims(config: Config, seeds: Seeds) -> Iterator[Claim]:
    """The verdicts."""
    yield from _linearised(config, seeds)
    yield from _at_a_minimum(config, seeds)
    yield from _ends(config, seeds)
    yield from _controls(config, seeds)


# Where all batches can be listed


def _linearised(config: Config, seeds: Seeds) -> Iterator[Claim]:
    yield stats.claim_of_all(
        "enumeration",
        statement="The learning rate from which on second moments grow is the one that one "
        "symmetric eigenvalue gives, with and without replacement.",
        source=EXACT,
        measured="largest relative difference from the root of the spectral radius, of the map "
        "summed over all batches, on four points in the plane and "
        f"{config.problems} random problems, over batch sizes",
        values=over_seeds(seeds, "enumeration"),
        cases=config.problems,
        case="problem",
        expected=EQUAL,
    )
    yield stats.claim_over_seeds(
        "population",
        statement="A population of replicas that branch as their squares grow does so as theory "
        "says, and stands still at the threshold.",
        source=f"{PAPER_B}, theorem 1",
        measured=_growth(config),
        values=over_seeds(seeds, "population"),
        expected=REPRODUCED,
    )


def _growth(config: Config) -> str:
    multiples = ", ".join(f"{each:g}" for each in MULTIPLES)
    return (
        "largest relative difference of the factor by which mean squares grow in a step, of "
        f"{config.replicas} replicas on four points, over batch sizes 1 to 3 and learning rates "
        f"of {multiples} times the threshold"
    )


# At a minimum


def _at_a_minimum(config: Config, seeds: Seeds) -> Iterator[Claim]:
    sizes = ", ".join(map(str, config.batch_size))
    for name, multiple, does in (
        ("stays", config.below, "stays there"), ("leaves", config.above, "leaves"),
    ):  # fmt: skip
        yield stats.claim_of_runs(
            name,
            statement=f"SGD that starts at a minimum {does} with a learning rate of {multiple:g} "
            "times its threshold.",
            source=f"{PAPER_B}; {EXACT}",
            measured=f"{_share(name)} of batches of {sizes}, at {multiple:g} times the threshold "
            f"of each, within {config.steps} steps",
            values=_shares(
                seeds, [name_of_start(size, multiple) for size in config.batch_size], name
            ),
            runs=len(config.batch_size),
            expected=stats.MOST,
        )


def _share(name: str) -> str:
    side = "less" if name == "stays" else "at least"
    return f"share of runs that get {side} than {LEFT:g} away from where {START:g} off they started"


def _shares(seeds: Seeds, stages: Sequence[str], name: str) -> list[float]:
    """The share of runs of each seed that stay, or that leave."""
    left = [over_seeds(seeds, stage, "left") for stage in stages]
    wanted = 0.0 if name == "stays" else 1.0
    return [
        math.nan if any(map(math.isnan, each)) else stats.mean(value == wanted for value in each)
        for each in zip(*left, strict=True)
    ]


# Where SGD ends


def _ends(config: Config, seeds: Seeds) -> Iterator[Claim]:
    for size in sorted(set(config.noisy_batch_size)):
        yield _just_below(config, seeds, size)
    names = [name_of_end(*each) for each in config.noisy]
    yield stats.claim_of_runs(
        "descent_ends_elsewhere",
        statement="The minimum of full-batch descent is unstable for it.",
        source=f"{DERIVED}, from {PAPER_B}",
        measured="share of these learning rates and batch sizes whose threshold at the minimum of "
        f"full-batch descent with lr = {config.lr:g} is below the learning rate",
        values=_over_runs(seeds, names, lambda ratio: ratio < 1, "descent"),
        runs=len(names),
        expected=stats.MOST,
    )
    yield stats.claim_over_seeds(
        "batch_sharpness",
        statement="Batch sharpness is at 2 / lr in the second half of training.",
        source=EDGE,
        measured="batch sharpness, the mean over batches of the curvature along their own "
        "gradient, by 2 / lr: its median over the second half of a run, averaged over the runs",
        values=[
            stats.mean(each)
            for each in zip(*(over_seeds(seeds, name, "batch") for name in names), strict=True)
        ],
        expected=AT_THE_EDGE,
        note=f"Training is {config.noisy_steps} steps here, and 150,000 in the paper.",
    )


def _just_below(config: Config, seeds: Seeds, size: int) -> Claim:
    low, high = JUST_ABOVE
    rates = [lr for lr, each in config.noisy if each == size]
    names = [name_of_end(lr, size) for lr in rates]
    medians = ", ".join(
        f"{_median(over_seeds(seeds, name)):.2f} at {lr:g}"
        for name, lr in zip(names, rates, strict=True)
    )
    return stats.claim_of_runs(
        f"ends_just_below_batch{size}",
        statement=f"With batches of {size}, SGD ends at minima whose threshold is just above its "
        "own learning rate.",
        source=f"{DERIVED}, from {EXACT}",
        measured=f"share of runs whose threshold after {config.noisy_steps} steps is {low:g} to "
        f"{high:g} times their learning rate, at lr = {', '.join(f'{lr:g}' for lr in rates)}; a "
        "run that diverges has none",
        values=_over_runs(seeds, names, lambda ratio: low <= ratio <= high),
        runs=len(names),
        expected=stats.MOST,
        note=f"The median over seeds is {medians}." if seeds else "",
    )


def _median(values: Sequence[float]) -> float:
    """The median of those that are known; NaN if none is."""
    return statistics.median(stats.known(values) or [math.nan])


def _over_runs(
    seeds: Seeds, names: Sequence[str], holds: Callable[[float], bool], number: str = "value"
) -> list[float]:
    """The share of the runs of each seed of which something holds; not of one that diverged."""
    ratios = [over_seeds(seeds, name, number) for name in names]
    return [stats.mean(map(holds, each)) for each in zip(*ratios, strict=True)]


# What has to fail


def _controls(config: Config, seeds: Seeds) -> Iterator[Claim]:
    n = config.network.examples
    yield stats.control(
        stats.claim_over_seeds,
        "plain_replicas",
        statement="the mean square of replicas that go their own ways grows as theory says, too.",
        measured=_growth(config),
        values=over_seeds(seeds, "population", "plain"),
        expected=REPRODUCED,
    )
    of_runs = partial(stats.control, stats.claim_of_runs, runs=1, expected=stats.MOST)
    yield of_runs(
        "threshold_of_one_for_all",
        statement="steps with all examples leave where those with one do.",
        measured=f"{_share('leaves')}, of batches of {n} at {config.above:g} times the threshold "
        "of batches of 1",
        values=_shares(seeds, ["full_batch_above_1"], "leaves"),
    )
    yield of_runs(
        "threshold_of_all_for_one",
        statement="steps with one example stay where those with all do.",
        measured=f"{_share('stays')}, of batches of 1 at {config.below:g} times the threshold of "
        f"batches of {n}",
        values=_shares(seeds, ["one_below_full_batch"], "stays"),
    )
    low, high = JUST_ABOVE
    ratios = over_seeds(seeds, "minimum", "ratio")
    yield of_runs(
        "descent",
        statement="full-batch descent ends at minima whose threshold is just above its own "
        "learning rate, too.",
        measured=f"share of runs of full-batch descent whose threshold is {low:g} to {high:g} "
        f"times their learning rate, at lr = {config.lr:g}",
        values=[float(low <= ratio <= high) for ratio in ratios],
    )


def summary(config: Config, found: Sequence[Claim]) -> str:
    """The result in a sentence or two."""
    by_id = {claim.id: claim for claim in found}
    stays, leaves = (by_id[name].statistic for name in ("stays", "leaves"))
    largest = max(config.noisy_batch_size)
    just_below = by_id[f"ends_just_below_batch{largest}"].statistic
    return (
        f"{stats.counted(found)} Started at a minimum, {stays:.0%} of runs stay at "
        f"{config.below:g} times their threshold, and {leaves:.0%} leave at {config.above:g} times "
        f"it. Of runs of SGD with batches of {largest}, {just_below:.0%} end where their threshold "
        "is just above their learning rate."
    )
