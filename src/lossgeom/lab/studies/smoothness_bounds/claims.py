"""What the records say of the statements."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import numpy as np

from lossgeom.claim import Claim, Interval
from lossgeom.lab import statistics as stats
from lossgeom.lab.studies._stages import over_seeds
from lossgeom.lab.studies._study import SeedRecords
from lossgeom.lab.studies.smoothness_bounds.config import FEWEST_LEVELS, Config
from lossgeom.lab.studies.smoothness_bounds.run import name_of_end, name_of_size

PAPER_B = "Ma and Ying, arXiv:2105.13462"
DERIVED = f"derived here, after {PAPER_B}"
PAPER_A = "MacDonald et al., arXiv:2305.14683, theorem 6.1"

# What each statement expects of its statistic, fixed before the seeds of the study were run.
HOLDS: Interval = (-math.inf, 1.0)  # measured over bound
CLOSE: Interval = (0.4, math.inf)  # the same, where a bound is close
LOWER: Interval = (-math.inf, 1.0)  # as a multiple
TOGETHER: Interval = (0.5, math.inf)  # rank correlation of attacks and their bound
SLOWER: Interval = (0.0, math.inf)  # power of the number of examples

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
    holds = partial(stats.claim_of_all, source=DERIVED, expected=HOLDS)

    def over_bound(name: str, bound: str) -> list[float]:
        return largest(seeds, ends.values(), lambda row: row[name] / row[bound])

    yield holds(
        "generalisation",
        statement="The error on new inputs is never above its bound by gradients at the examples.",
        measured=f"mean error over the certified bound by cells, {ENDS}",
        values=over_bound("error", "error_bound"),
    )
    yield holds(
        "robustness",
        statement="Nor do attacks on new inputs move the outputs further than their bound.",
        measured=f"mean change that attacks find over the certified bound by cells, {ENDS}",
        values=over_bound("attack", "attack_bound"),
    )
    yield holds(
        "trace",
        statement="SGD ends where the trace of the Hessian is at most what its settings allow.",
        measured=f"trace over the bound from learning rate and batch size alone, {ENDS}",
        values=over_bound("value", "allowed"),
    )
    yield holds(
        "inputs",
        statement="Gradients in the input are at most what the settings of SGD allow, too.",
        measured=f"g_x of order 1 over the bound from learning rate, batch size and the first "
        f"layer, {ENDS}",
        values=over_bound("g_x", "g_x_allowed"),
    )


def _at_smallest_batch(config: Config) -> list[str]:
    return [name_of_end(lr, config.batch_size[0]) for lr in config.lr]


def _close(config: Config, seeds: Seeds) -> Claim:
    shares = largest(seeds, _at_smallest_batch(config), lambda row: row["value"] / row["allowed"])
    return stats.claim_over_seeds(
        "close",
        statement="With the smallest batch it comes close to that.",
        source=DERIVED,
        measured="trace over the bound from learning rate and batch size alone, largest over "
        "learning rates",
        values=shares,
        expected=CLOSE,
    )


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
    both = (of_ends(seeds, ends, name) for name in ("attack_bound", "attack"))
    return stats.claim_of_seeds(
        "attacks_follow",
        statement="The bound on attacks ranks runs as attacks do.",
        source=DERIVED,
        of="rank correlation over runs of the bound on attacks and what they find",
        values=[
            stats.rank_correlation(list(bound.values()), list(found.values()))
            for bound, found in zip(*both, strict=True)
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
    holds = partial(stats.control, stats.claim_of_all, expected=HOLDS)
    yield holds(
        "first_order",
        statement="attacks move no output further than the gradient at the nearest example allows "
        "by itself.",
        measured="largest change that an attack finds over its size and that gradient, over new "
        "inputs and runs of a seed",
        values=largest(seeds, ends.values(), lambda row: row["first_order"]),
    )
    yield holds(
        "unfitted",
        statement="a network that has not been trained is within the bound without the misfit.",
        measured="mean error over the bound by cells without what the examples are missed by",
        values=over_seeds(seeds, "unfitted"),
    )
    yield holds(
        "half_the_trace",
        statement="the trace is at most half of what the settings allow.",
        measured="twice the trace over the bound, at the smallest batch, largest over learning "
        "rates",
        values=largest(
            seeds, _at_smallest_batch(config), lambda row: 2 * row["value"] / row["allowed"]
        ),
    )


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


def rows(seeds: Seeds, stage: str) -> list[dict[str, float]]:
    """The numbers of a stage for each seed, NaN where there are none."""
    return [
        {name: each for name in NUMBERS for each in over_seeds([seed], stage, name)}
        for seed in seeds
    ]


NUMBERS = (
    "value", "allowed", "error", "error_bound", "attack", "attack_bound", "first_order",
    "g_x", "g_x_allowed",
)  # fmt: skip


def of_ends(seeds: Seeds, ends: dict[Place, str], number: str) -> list[dict[Place, float]]:
    """A number of the runs of each seed that fit their examples, by learning rate and batch."""
    found = []
    for seed in seeds:
        values = {place: over_seeds([seed], stage, number)[0] for place, stage in ends.items()}
        found.append({place: value for place, value in values.items() if not math.isnan(value)})
    return found


def largest(
    seeds: Seeds, stages: Iterable[str], ratio: Callable[[dict[str, float]], float]
) -> list[float]:
    """The largest ratio of the stages of each seed; NaN where there is none."""
    return [
        max(stats.known(ratio(rows([seed], stage)[0]) for stage in stages), default=math.nan)
        for seed in seeds
    ]


def change(lines: Sequence[Sequence[Place]], values: dict[Place, float]) -> float:
    """What a number is multiplied by from the first to the last place of a line, in the mean."""
    ends = [(line[0], line[-1]) for line in lines if {line[0], line[-1]} <= values.keys()]
    logs = [math.log(values[last] / values[first]) for first, last in ends]
    return math.exp(stats.mean(logs)) if logs else math.nan


def slopes(config: Config, seeds: Seeds, number: str) -> list[float]:
    """The power of the number of examples in a number of each seed, by least squares."""
    found = []
    for seed in seeds:
        values = [over_seeds([seed], name_of_size(n), number)[0] for n in config.sizes]
        points = [(n, v) for n, v in zip(config.sizes, values, strict=True) if v > 0]
        logs = np.log(points).T if len(points) >= FEWEST_LEVELS else None
        found.append(math.nan if logs is None else float(np.polyfit(logs[0], logs[1], 1)[0]))
    return found
