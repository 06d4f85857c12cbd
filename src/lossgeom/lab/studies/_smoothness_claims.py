"""The claims of the study of input smoothness."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from lossgeom.claim import Claim, Interval
from lossgeom.lab.statistics import claim_of_all, claim_of_seeds, rank_correlation, seeds_with
from lossgeom.lab.studies._smoothness_metrics import (
    G_W,
    G_X,
    LOSS,
    ORDERS,
    RATIOS,
    SHARPNESS,
    TEST_LOSS,
    Form,
)
from lossgeom.metrics import Metric
from lossgeom.recording.record import Record

if TYPE_CHECKING:
    from lossgeom.lab.studies.input_smoothness import Config

PAPER_B = "Ma and Ying, arXiv:2105.13462"

# What each statement expects of its statistic, fixed before the seeds of the study were run.
ON_ONE_CLOUD: Interval = (0.9, math.inf)  # rank correlation of g_W and g_x
FALLS: Interval = (-math.inf, -0.5)  # rank correlation of a seminorm with the learning rate
RISES: Interval = (0.5, math.inf)  # and with the batch size
PREDICTS: Interval = (0.5, math.inf)  # rank correlation of g_x and the test loss
HOLDS: Interval = (-math.inf, 1.0)  # left side over right side

FEWEST_RUNS = 5  # of a seed, for a correlation over them
FEWEST_LEVELS = 3  # of a setting, for a correlation along them

Place = tuple[float, int]  # learning rate and batch size
Values = dict[str, float]  # the last of every metric


def left_out(record: Record) -> str:
    """Why a run that is over does not count as interpolating; empty if it does."""
    if "diverged_at" in record.manifest:
        return f"diverged at step {record.manifest['diverged_at']}"
    steps, losses = record.series(LOSS.name)
    limit = record.config["study"]["interpolation"]
    if losses[-1] < limit:
        return ""
    return f"loss {losses[-1]:.2g} after {steps[-1]} steps, not below {limit:g}"


def last_values(record: Record) -> Values:
    """The last value of every metric."""
    return {row["metric"]: row["value"] for row in record.rows()}


@dataclass(frozen=True)
class SeedRuns:
    """What the runs of one seed end with: those that were measured, and those that interpolate."""

    seed: int
    measured: dict[Place, Values]
    kept: dict[Place, Values]

    @classmethod
    def of(cls, seed: int, runs: dict[Place, Record]) -> SeedRuns:
        """From the records of a seed."""
        values = {place: last_values(record) for place, record in runs.items()}
        return cls(
            seed,
            {place: v for place, v in values.items() if SHARPNESS.name in v},
            {place: values[place] for place, record in runs.items() if not left_out(record)},
        )

    def correlation(self, x: Metric, y: Metric, shuffled: bool = False) -> float:
        """Rank correlation over the runs that interpolate; NaN for too few of them."""
        if len(self.kept) < FEWEST_RUNS:
            return math.nan
        xs, ys = ([values[m.name] for values in self.kept.values()] for m in (x, y))
        if shuffled:
            xs = np.random.default_rng(self.seed).permutation(xs).tolist()
        return rank_correlation(xs, ys)

    def line(self, axis: int, other: float, metric: Metric) -> float:
        """Rank correlation with one setting at a level of the other; NaN for too few runs."""
        runs = [(p[axis], v[metric.name]) for p, v in self.kept.items() if p[1 - axis] == other]
        return (
            rank_correlation(*zip(*runs, strict=True)) if len(runs) >= FEWEST_LEVELS else math.nan
        )

    def along(self, axis: int, others: Sequence[float], metrics: Iterable[Metric]) -> float:
        """The mean of these over levels and metrics, as far as there are any."""
        return mean_of_known(self.line(axis, other, m) for other in others for m in metrics)

    def lower_left(
        self, axis: int, others: Sequence[float], weaker: Callable[[Sequence[float]], float]
    ) -> float:
        """The weaker of the means for g_W and for g_x; NaN where one is not known."""
        means = [self.along(axis, others, [g[k] for k in ORDERS]) for g in (G_W, G_X)]
        return math.nan if any(map(math.isnan, means)) else weaker(means)

    def ratios(self, form: Form) -> list[float]:
        """Of all runs that were measured, interpolating or not, the larger one of all orders."""
        return [max(v[m.name] for m in RATIOS[form]) for v in self.measured.values()]


def mean_of_known(values: Iterable[float]) -> float:
    """The mean of what is not NaN; NaN if there is nothing."""
    known = [value for value in values if not math.isnan(value)]
    return statistics.fmean(known) if known else math.nan


def claims(config: Config, records: Sequence[Record]) -> list[Claim]:
    """The verdicts, over the seeds all of whose runs are complete."""
    by_seed: dict[int, dict[Place, Record]] = {}
    for record in records:
        run = record.config
        by_seed.setdefault(run["seed"], {})[run["lr"], run["batch_size"]] = record
    wanted = len(config.lr) * len(config.batch_size)
    seeds = [
        SeedRuns.of(seed, runs) for seed, runs in sorted(by_seed.items()) if len(runs) == wanted
    ]
    return [
        *(_on_one_cloud(config, seeds, k) for k in ORDERS),
        *_lower_left(config, seeds),
        *_inequality(seeds),
        _predicts(config, seeds),
        *(_shuffled(config, seeds, k) for k in ORDERS),
    ]


def _over(config: Config) -> str:
    return f"over the runs of a seed that get to a training loss below {config.interpolation:g}"


def _mean(values: Iterable[float]) -> str:
    mean = mean_of_known(values)
    return "not known" if math.isnan(mean) else f"{mean:.2f}"


def _on_one_cloud(config: Config, seeds: Sequence[SeedRuns], k: int) -> Claim:
    runs = len(seeds) * len(config.lr) * len(config.batch_size)
    third = _mean(seed.correlation(G_W[3], G_X[3]) for seed in seeds)
    return claim_of_seeds(
        f"spearman_k{k}",
        statement=f"g_W and g_x of order k = {k} lie on one increasing cloud.",
        source=f"{PAPER_B}, scatter plot",
        measured=f"{seeds_with(ON_ONE_CLOUD)} rank correlation of g_W and g_x {_over(config)}",
        values=[seed.correlation(G_W[k], G_X[k]) for seed in seeds],
        inside=ON_ONE_CLOUD,
        note=f"{sum(len(seed.kept) for seed in seeds)} of {runs} runs interpolate."
        if k == 1
        else f"For k = 3 it is {third}.",
    )


def _shuffled(config: Config, seeds: Sequence[SeedRuns], k: int) -> Claim:
    return claim_of_seeds(
        f"control_shuffled_k{k}",
        statement=f"Negative control: g_W of a run and g_x of another one, drawn at random, lie on "
        f"one increasing cloud, too (k = {k}).",
        source="made to fail",
        measured=f"{seeds_with(ON_ONE_CLOUD)} rank correlation of g_W and the g_x of another "
        f"run {_over(config)}, in an order drawn by the seed",
        values=[seed.correlation(G_W[k], G_X[k], shuffled=True) for seed in seeds],
        inside=ON_ONE_CLOUD,
        control=True,
    )


def _lower_left(config: Config, seeds: Sequence[SeedRuns]) -> list[Claim]:
    seminorms = [g[k] for g in (G_W, G_X) for k in ORDERS]
    noisy = [size for size in config.batch_size if size < config.examples]

    def note(axis: int, others: Sequence[float], name: str) -> str:
        parts = (
            f"{other:g}: {_mean(seed.along(axis, [other], seminorms) for seed in seeds)}"
            for other in others
        )
        return f"By {name}, mean of all seminorms: {', '.join(parts)}."

    made = partial(claim_of_seeds, source=f"{PAPER_B}, scatter plot")
    measured = (
        "{} mean over {} and orders k = 1 and 2 of the rank correlation between {} and a seminorm "
        f"{_over(config)}; the weaker one of g_W and g_x"
    )
    return [
        made(
            "larger_lr_lower_left",
            statement="A larger learning rate moves to the lower left where batches make noise.",
            measured=measured.format(
                seeds_with(FALLS), "batch sizes below the full one", "learning rate"
            ),
            values=[seed.lower_left(0, noisy, max) for seed in seeds],
            inside=FALLS,
            note=note(0, config.batch_size, "batch size"),
        ),
        made(
            "smaller_batch_lower_left",
            statement="A smaller batch moves to the lower left.",
            measured=measured.format(seeds_with(RISES), "learning rates", "batch size"),
            values=[seed.lower_left(1, config.lr, min) for seed in seeds],
            inside=RISES,
            note=note(1, config.lr, "learning rate"),
        ),
    ]


def _inequality(seeds: Sequence[SeedRuns]) -> list[Claim]:
    ratio = "left side over right side, the larger one of k = 1 and 2"
    runs = "over all runs of a seed that end, interpolating or not"
    made = partial(claim_of_all, expected=HOLDS)
    return [
        made(
            "inequality",
            statement="The gradient in the input is never larger than the gradient in the first "
            "layer's weights allows.",
            source=f"{PAPER_B}, in the form for each example",
            measured=f"{ratio}; the largest over examples and {runs}",
            values=[max(seed.ratios("largest"), default=math.nan) for seed in seeds],
        ),
        made(
            "inequality_averaged",
            statement="Nor is g_x larger than g_W of the first layer's weights allows.",
            source=f"{PAPER_B}, averaged over examples",
            measured=f"{ratio}; the largest {runs}",
            values=[max(seed.ratios("averaged"), default=math.nan) for seed in seeds],
        ),
        made(
            "control_mispaired_inequality",
            statement="Negative control: the gradient in the input is never larger than another "
            "example's gradient allows.",
            source="made to fail",
            measured=f"each left side over the right side of another example, the larger one of "
            f"k = 1 and 2; the largest over examples, whose mean {runs}, is below the largest",
            values=[mean_of_known(seed.ratios("mispaired")) for seed in seeds],
            control=True,
        ),
    ]


def _predicts(config: Config, seeds: Sequence[SeedRuns]) -> Claim:
    others: dict[str, Metric] = {"g_x of order 2": G_X[2], "g_W": G_W[1], "sharpness": SHARPNESS}
    found = (
        f"{name} {_mean(seed.correlation(metric, TEST_LOSS) for seed in seeds)}"
        for name, metric in others.items()
    )
    return claim_of_seeds(
        "g_x_predicts_test_loss",
        statement="A smaller g_x goes with a smaller test loss.",
        source=PAPER_B,
        measured=f"{seeds_with(PREDICTS)} rank correlation of g_x of order 1 and the test loss "
        f"{_over(config)}",
        values=[seed.correlation(G_X[1], TEST_LOSS) for seed in seeds],
        inside=PREDICTS,
        note=f"The same of {', '.join(found)}.",
    )


def summary(config: Config, found: Sequence[Claim]) -> str:
    """The result in a sentence or two."""
    statements = [claim for claim in found if not claim.control]
    shown = sum(claim.verdict == "shown" for claim in statements)
    controls = [claim for claim in found if claim.control]
    failed = sum(claim.verdict == "contradicted" for claim in controls)
    by_id = {claim.id: statistics.median(claim.per_seed or [math.nan]) for claim in found}
    return (
        f"{shown} of {len(statements)} statements are shown on {config.data} with SGD. Over runs "
        f"that interpolate, g_W and g_x have a rank correlation of {by_id['spearman_k1']:.2f} for "
        f"k = 1 and {by_id['spearman_k2']:.2f} for k = 2, and g_x has one of "
        f"{by_id['g_x_predicts_test_loss']:.2f} with the test loss. {failed} of {len(controls)} "
        "negative controls fail, as they should."
    )
