"""What the records say of the statements."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from operator import truediv

import numpy as np

from lossgeom.lab import statistics as stats
from lossgeom.lab.studies._stages import over_seeds
from lossgeom.lab.studies._study import SeedRecords
from lossgeom.lab.studies.smoothness_bounds.config import FEWEST_LEVELS, Config
from lossgeom.lab.studies.smoothness_bounds.run import name_of_end, name_of_size
from lossgeom.recording.claim import Claim, Interval

PAPER_B = "Ma and Ying, arXiv:2105.13462"
DERIVED = f"derived here, after {PAPER_B}"
PAPER_A = "MacDonald et al., arXiv:2305.14683, theorem 6.1"

# What each statement expects of its statistic, fixed before the seeds of the study were run.
HOLDS: Interval = (-math.inf, 1.0)  # measured over bound
CLOSE: Interval = (0.4, math.inf)  # the same, where a bound is close
LOWER: Interval = (-math.inf, 1.0)  # as a multiple
TOGETHER: Interval = (0.5, math.inf)  # rank correlation of attacks and their bound
SLOWER: Interval = (0.2, math.inf)  # power of the number of examples

Seeds = Sequence[SeedRecords[Config]]
Place = tuple[float, int]  # learning rate and batch size
ENDS = "over runs of SGD that fit their examples, the largest of a seed"


def claims(config: Config, seeds: Seeds) -> Iterator[Claim]:
    """The verdicts."""
    ends = {(lr, size): name_of_end(lr, size) for lr in config.lr for size in config.batch_size}
    yield from _hold(seeds, ends)
    yield _close(config, seeds)
    yield from _lower_left(config, seeds, ends)
    yield _together(seeds, ends)
    yield from _rates(config, seeds)
    yield from _controls(config, seeds, ends)


def _hold(seeds: Seeds, ends: dict[Place, str]) -> Iterator[Claim]:
    for name, statement, number, measured in (
        ("generalisation", "The error on new inputs is never above its bound by gradients at the "
         "examples.", "error", "mean error over the certified bound by cells"),
        ("robustness", "Nor do attacks on new inputs move the outputs further than their bound.",
         "attack", "mean change that attacks find over the certified bound by cells"),
        ("trace", "SGD ends where the trace of the Hessian is at most what its settings allow.",
         "value", "trace over the bound from learning rate and batch size alone"),
        ("inputs", "Gradients in the input are at most what the settings of SGD allow, too.",
         "g_x", "g_x over the bound from learning rate, batch size and the first layer"),
    ):  # fmt: skip
        yield stats.claim_of_all(
            name,
            statement=statement,
            source=DERIVED,
            measured=f"{measured}, {ENDS}",
            values=largest(seeds, ends.values(), number, f"{number}_bound"),
            expected=HOLDS,
        )


def _close(config: Config, seeds: Seeds) -> Claim:
    return stats.claim_over_seeds(
        "close",
        statement="With the smallest batch it comes close to that.",
        source=DERIVED,
        measured="trace over the bound from learning rate and batch size alone, largest over "
        "learning rates",
        values=_shares_of_trace(config, seeds),
        expected=CLOSE,
    )


def _shares_of_trace(config: Config, seeds: Seeds) -> list[float]:
    stages = [name_of_end(lr, config.batch_size[0]) for lr in config.lr]
    return largest(seeds, stages, "value", "value_bound")


def _lower_left(config: Config, seeds: Seeds, ends: dict[Place, str]) -> Iterator[Claim]:
    by_batch = [[(lr, size) for lr in config.lr] for size in config.batch_size]
    by_rate = [[(lr, size) for size in reversed(config.batch_size)] for lr in config.lr]
    rate, batch = "the largest learning rate over the smallest", "the smallest batch over the full"
    for name, setting, number, what, lines, over in (
        ("larger_lr", "larger learning rate", "value", "trace", by_batch, rate),
        ("smaller_batch", "smaller batch", "value", "trace", by_rate, batch),
        ("attacks", "larger learning rate", "attack_bound", "bound on attacks", by_batch, rate),
    ):
        yield stats.claim_over_seeds(
            name,
            statement=f"A {setting} lowers the {what}.",
            source=PAPER_B,
            measured=f"{what}, of {over}, geometric mean over the other setting",
            values=[change(lines, each) for each in of_ends(seeds, ends, number)],
            expected=LOWER,
        )


def _together(seeds: Seeds, ends: dict[Place, str]) -> Claim:
    bounds, found = (of_ends(seeds, ends, name) for name in ("attack_bound", "attack"))
    return stats.claim_of_seeds(
        "attacks_follow",
        statement="The bound on attacks ranks runs as attacks do.",
        source=DERIVED,
        of="rank correlation over runs of the bound on attacks and what they find",
        values=[
            stats.rank_correlation(list(bound.values()), list(attack.values()))
            for bound, attack in zip(bounds, found, strict=True)
        ],
        inside=TOGETHER,
    )


def _rates(config: Config, seeds: Seeds) -> Iterator[Claim]:
    powers = {name: slopes(config, seeds, name) for name in SAID}

    def less(one: str, other: str) -> list[float]:
        return [a - b for a, b in zip(powers[one], powers[other], strict=True)]

    for name, number, cells in (
        ("faster", "value", "where the cells may have any masses"),
        ("faster_than_cells", "masses", "where the masses of the cells are known"),
    ):
        yield stats.claim_over_seeds(
            name,
            statement=f"Paper A's bound falls faster with the number of examples than paper B's, "
            f"{cells}.",
            source=f"{PAPER_A}; {DERIVED}",
            measured="power of the number of examples in the bound by the moment of gradients, "
            "less that in theorem 6.1",
            values=less(number, "theorem"),
            expected=SLOWER,
            note=stats.means({SAID[each]: powers[each] for each in SAID}, ".2f")
            if name == "faster"
            else "",
        )
    yield stats.control(
        stats.claim_over_seeds,
        "faster_than_smooth",
        statement="it falls faster than its own form for the difference of model and target.",
        measured="power of the number of examples in that form, less that in theorem 6.1",
        values=less("smooth", "theorem"),
        expected=SLOWER,
    )


SAID = {
    "value": "paper B's bound",
    "masses": "with masses",
    "theorem": "theorem 6.1",
    "smooth": "its smooth difference form",
    "error": "the error",
}


def _controls(config: Config, seeds: Seeds, ends: dict[Place, str]) -> Iterator[Claim]:
    for name, statement, measured, values in (
        ("first_order", "attacks move no output further than the gradient at the nearest example "
         "allows by itself.", "largest change that an attack finds over its size and that "
         "gradient, over new inputs and runs of a seed",
         largest(seeds, ends.values(), "first_order")),
        ("unfitted", "a network that has not been trained is within the bound without the misfit.",
         "mean error over the bound by cells without what the examples are missed by",
         over_seeds(seeds, "unfitted")),
        ("half_the_trace", "the trace is at most half of what the settings allow.",
         "twice the trace over the bound, at the smallest batch, largest over learning rates",
         [2 * share for share in _shares_of_trace(config, seeds)]),
    ):  # fmt: skip
        yield stats.control(
            stats.claim_of_all, name, statement=statement, measured=measured, values=values,
            expected=HOLDS,
        )  # fmt: skip


def summary(config: Config, found: Sequence[Claim]) -> str:
    """The result in a sentence or two."""
    by_id = {claim.id: claim for claim in found}
    return (
        f"{stats.counted(found)} With {config.examples} examples, errors are at most "
        f"{by_id['generalisation'].statistic:.2f} of their certified bound and attacks "
        f"{by_id['robustness'].statistic:.2f}. SGD uses {by_id['close'].statistic:.2f} of the "
        "trace that its settings allow."
    )


# The statistics


def of_ends(seeds: Seeds, ends: dict[Place, str], number: str) -> list[dict[Place, float]]:
    """A number of the runs of each seed that fit their examples, by learning rate and batch."""
    values = zip(*(over_seeds(seeds, stage, number) for stage in ends.values()), strict=True)
    found = (zip(ends, each, strict=True) for each in values)
    return [{place: value for place, value in each if not math.isnan(value)} for each in found]


def largest(seeds: Seeds, stages: Iterable[str], number: str, over: str = "") -> list[float]:
    """The largest of the stages of each seed, over another number; NaN where there is none."""

    def ratios(stage: str) -> list[float]:
        values = over_seeds(seeds, stage, number)
        return list(map(truediv, values, over_seeds(seeds, stage, over))) if over else values

    of_seeds = zip(*map(ratios, stages), strict=True)
    return [max(stats.known(each), default=math.nan) for each in of_seeds]


def change(lines: Sequence[Sequence[Place]], values: dict[Place, float]) -> float:
    """What a number is multiplied by from the first to the last place of a line, in the mean."""
    ends = [(line[0], line[-1]) for line in lines if {line[0], line[-1]} <= values.keys()]
    logs = [math.log(values[last] / values[first]) for first, last in ends]
    return math.exp(stats.mean(logs)) if logs else math.nan


def slopes(config: Config, seeds: Seeds, number: str) -> list[float]:
    """The power of the number of examples in a number of each seed, by least squares."""
    values = zip(*(over_seeds(seeds, name_of_size(n), number) for n in config.sizes), strict=True)
    return [_slope([(n, v) for n, v in zip(config.sizes, each, strict=True) if v > 0])
            for each in values]  # fmt: skip


def _slope(points: Sequence[tuple[int, float]]) -> float:
    if len(points) < FEWEST_LEVELS:
        return math.nan
    x, y = np.log(points).T
    return float(np.polyfit(x, y, 1)[0])
