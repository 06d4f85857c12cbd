"""What the records say of the statements."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from lossgeom.lab import statistics as stats
from lossgeom.lab.studies._study import SeedRecords
from lossgeom.lab.studies.input_smoothness.config import FEWEST_LEVELS, Config
from lossgeom.lab.studies.input_smoothness.measures import (
    G_W,
    G_X,
    ORDERS,
    RATIOS,
    SHARPNESS,
    TEST_LOSS,
    Form,
)
from lossgeom.lab.studies.input_smoothness.run import left_out
from lossgeom.metrics import Metric
from lossgeom.recording.claim import Claim, Interval

PAPER_B = "Ma and Ying, arXiv:2105.13462"

# What each statement expects of its statistic, fixed before the seeds of the study were run.
ON_ONE_CLOUD: Interval = (0.9, math.inf)  # rank correlation of g_W and g_x
FALLS: Interval = (-math.inf, -0.5)  # rank correlation of a seminorm with the learning rate
RISES: Interval = (0.5, math.inf)  # and with the batch size
PREDICTS: Interval = (0.5, math.inf)  # rank correlation of g_x and the test loss
HOLDS: Interval = (-math.inf, 1.0)  # left side over right side

FEWEST_RUNS = 5  # of a seed, for a correlation over them

Place = tuple[float, ...]  # learning rate and batch size
Values = dict[str, float]  # the last of every metric


def claims(config: Config, records: Sequence[SeedRecords[Config]]) -> Iterator[Claim]:
    """The verdicts."""
    seeds = [Ends.of(each) for each in records]
    yield from (_on_one_cloud(config, seeds, k) for k in ORDERS)
    yield from _lower_left(config, seeds)
    yield from _inequality(seeds)
    yield _predicts(config, seeds)
    yield from (_shuffled(config, seeds, k) for k in ORDERS)


def _over(config: Config) -> str:
    return f"over the runs of a seed that get to a training loss below {config.interpolation:g}"


def _on_one_cloud(config: Config, seeds: Sequence[Ends], k: int) -> Claim:
    runs = len(seeds) * len(config.lr) * len(config.batch_size)
    third = stats.mean_known(seed.correlation(G_W[3], G_X[3]) for seed in seeds)
    return stats.claim_of_seeds(
        f"spearman_k{k}",
        statement=f"g_W and g_x of order k = {k} lie on one increasing cloud.",
        source=f"{PAPER_B}, scatter plot",
        of=f"rank correlation of g_W and g_x {_over(config)}",
        values=[seed.correlation(G_W[k], G_X[k]) for seed in seeds],
        inside=ON_ONE_CLOUD,
        note=f"{sum(len(seed.kept) for seed in seeds)} of {runs} runs interpolate."
        if k == 1
        else f"For k = 3 it is {third}.",
    )


def _shuffled(config: Config, seeds: Sequence[Ends], k: int) -> Claim:
    return stats.control(
        stats.claim_of_seeds,
        f"shuffled_k{k}",
        statement="g_W of a run and g_x of another one, drawn at random, lie on one increasing "
        f"cloud, too (k = {k}).",
        of=f"rank correlation of g_W and the g_x of another run {_over(config)}, in an order drawn "
        "by the seed",
        values=[seed.correlation(G_W[k], G_X[k], shuffled=True) for seed in seeds],
        inside=ON_ONE_CLOUD,
    )


def _lower_left(config: Config, seeds: Sequence[Ends]) -> Iterator[Claim]:
    seminorms = [g[k] for g in (G_W, G_X) for k in ORDERS]
    noisy = [size for size in config.batch_size if size < config.network.examples]

    def note(axis: int, others: Sequence[float], name: str) -> str:
        parts = (
            f"{other:g}: {stats.mean_known(seed.along(axis, [other], seminorms) for seed in seeds)}"
            for other in others
        )
        return f"By {name}, mean of all seminorms: {', '.join(parts)}."

    made = partial(stats.claim_of_seeds, source=f"{PAPER_B}, scatter plot")
    of = (
        "mean over {} and orders k = 1 and 2 of the rank correlation between {} and a seminorm "
        f"{_over(config)}; the weaker one of g_W and g_x"
    )
    yield made(
        "larger_lr_lower_left",
        statement="A larger learning rate moves to the lower left where batches make noise.",
        of=of.format("batch sizes below the full one", "learning rate"),
        values=[seed.lower_left(0, noisy, max) for seed in seeds],
        inside=FALLS,
        note=note(0, config.batch_size, "batch size"),
    )
    yield made(
        "smaller_batch_lower_left",
        statement="A smaller batch moves to the lower left.",
        of=of.format("learning rates", "batch size"),
        values=[seed.lower_left(1, config.lr, min) for seed in seeds],
        inside=RISES,
        note=note(1, config.lr, "learning rate"),
    )


def _inequality(seeds: Sequence[Ends]) -> Iterator[Claim]:
    ratio = "left side over right side, the larger one of k = 1 and 2"
    runs = "over all runs of a seed that end, interpolating or not"
    holds = partial(stats.claim_of_all, expected=HOLDS)
    yield holds(
        "inequality",
        statement="The gradient in the input is never larger than the gradient in the first "
        "layer's weights allows.",
        source=f"{PAPER_B}, in the form for each example",
        measured=f"{ratio}; the largest over examples and {runs}",
        values=[max(seed.ratios("largest"), default=math.nan) for seed in seeds],
    )
    yield holds(
        "inequality_averaged",
        statement="Nor is g_x larger than g_W of the first layer's weights allows.",
        source=f"{PAPER_B}, averaged over examples",
        measured=f"{ratio}; the largest {runs}",
        values=[max(seed.ratios("averaged"), default=math.nan) for seed in seeds],
    )
    yield stats.control(
        holds,
        "mispaired_inequality",
        statement="the gradient in the input is never larger than another example's gradient "
        "allows.",
        measured=f"each left side over the right side of another example, the larger one of "
        f"k = 1 and 2; the largest over examples, whose mean {runs}, is below the largest",
        values=[stats.mean(stats.known(seed.ratios("mispaired"))) for seed in seeds],
    )


def _predicts(config: Config, seeds: Sequence[Ends]) -> Claim:
    others: dict[str, Metric] = {"g_x of order 2": G_X[2], "g_W": G_W[1], "sharpness": SHARPNESS}
    found = (
        f"{name} {stats.mean_known(seed.correlation(metric, TEST_LOSS) for seed in seeds)}"
        for name, metric in others.items()
    )
    return stats.claim_of_seeds(
        "g_x_predicts_test_loss",
        statement="A smaller g_x goes with a smaller test loss.",
        source=PAPER_B,
        of=f"rank correlation of g_x of order 1 and the test loss {_over(config)}",
        values=[seed.correlation(G_X[1], TEST_LOSS) for seed in seeds],
        inside=PREDICTS,
        note=f"The same of {', '.join(found)}.",
    )


def summary(config: Config, found: Sequence[Claim]) -> str:
    """The result in a sentence or two."""
    by_id = {claim.id: statistics.median(claim.per_seed or [math.nan]) for claim in found}
    return (
        f"On {config.network.data} with SGD, {stats.counted(found)} Over runs that interpolate, "
        f"g_W and g_x have a rank correlation of {by_id['spearman_k1']:.2f} for k = 1 and "
        f"{by_id['spearman_k2']:.2f} for k = 2, and g_x has one of "
        f"{by_id['g_x_predicts_test_loss']:.2f} with the test loss."
    )


@dataclass(frozen=True)
class Ends:
    """What the runs of one seed end with: those that were measured, and those that interpolate."""

    seed: int
    measured: dict[Place, Values]
    kept: dict[Place, Values]

    @classmethod
    def of(cls, seed: SeedRecords[Config]) -> Ends:
        """Read the records of a seed."""
        values = {
            place: {row["metric"]: row["value"] for row in record.rows()}
            for place, record in seed.records.items()
        }
        measured = {place: v for place, v in values.items() if SHARPNESS.name in v}
        kept = {place: v for place, v in values.items() if not left_out(seed.records[place])}
        return cls(seed.seed, measured, kept)

    def correlation(self, x: Metric, y: Metric, shuffled: bool = False) -> float:
        """Rank correlation over the runs that interpolate; NaN for too few of them."""
        if len(self.kept) < FEWEST_RUNS:
            return math.nan
        xs, ys = ([values[m.name] for values in self.kept.values()] for m in (x, y))
        if shuffled:
            xs = np.random.default_rng(self.seed).permutation(xs).tolist()
        return stats.rank_correlation(xs, ys)

    def line(self, axis: int, other: float, metric: Metric) -> float:
        """Rank correlation with one setting at a level of the other; NaN for too few runs."""
        runs = [(p[axis], v[metric.name]) for p, v in self.kept.items() if p[1 - axis] == other]
        return (
            stats.rank_correlation(*zip(*runs, strict=True))
            if len(runs) >= FEWEST_LEVELS
            else math.nan
        )

    def along(self, axis: int, others: Sequence[float], metrics: Iterable[Metric]) -> float:
        """The mean of :meth:`line` over levels and metrics, of those that are known."""
        return stats.mean(
            stats.known(self.line(axis, other, m) for other in others for m in metrics)
        )

    def lower_left(
        self, axis: int, others: Sequence[float], weaker: Callable[[Sequence[float]], float]
    ) -> float:
        """The weaker of the means for g_W and for g_x; NaN where one is not known."""
        means = [self.along(axis, others, [g[k] for k in ORDERS]) for g in (G_W, G_X)]
        return math.nan if any(map(math.isnan, means)) else weaker(means)

    def ratios(self, form: Form) -> list[float]:
        """The larger ratio of all orders, for each run that was measured, interpolating or not."""
        return [max(v[m.name] for m in RATIOS[form]) for v in self.measured.values()]
