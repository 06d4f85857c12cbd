"""Progressive sharpening, the edge of stability, and what label smoothing does to them.

MacDonald, Valmadre and Lucey (arXiv:2305.14683, figure 1) train with full-batch gradient descent
and find that more label smoothing lets the input-output Jacobian grow less, and with it the
sharpness. Cohen et al. (2021) find that sharpness rises until it reaches 2 / lr and is held there.
Both are tried here on real data: every smoothing is trained at a learning rate at which the edge
is reached, and at a small one at which it is not, for the same training time lr * step.

The configuration was chosen on seeds 100 to 102, and what follows was fixed on them, before seeds
10, 11, ... were run, which are those of the study. It had been a relu network at lr = 0.5, whose
sharpness went to twice 2 / lr and then fell far below it. Seen on the pilot seeds:

- Without smoothing the digits are soon fitted, the Hessian of a saturated cross-entropy vanishes,
  and sharpness falls again, to less than a tenth of 2 / lr. Hence smoothings start at 0.1.
- Sharpness rises from 0.07 times 2 / lr, is 1.4 to 3 times that for ten to sixty steps, and 0.77 to
  1.2 times from then on. Within a quarter of it are 0.80 to 0.92 of the measurements since it first
  was there, of those at the small learning rate 0.05 to 0.27.
- At the small learning rate, sharpness gets about as large with smoothings of 0.1 and 0.3, and less
  with more: the rank correlation is -0.9 or -1.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lossgeom.claim import Claim, Interval
from lossgeom.lab.statistics import (
    claim_of_seeds,
    claim_over_seeds,
    rank_correlation,
    seeds_with,
)
from lossgeom.lab.studies._descent import descend
from lossgeom.lab.studies._network import (
    NETWORK_SETTINGS,
    build,
    check_settings,
    in_chunks,
    network_rules,
)
from lossgeom.lab.studies._study import Study, fresh
from lossgeom.metrics import Accuracy, JacobianNorm, Loss, Metric, Sharpness
from lossgeom.problem import Problem
from lossgeom.recording.record import Record
from lossgeom.recording.tracker import Tracker

PAPER_A = "MacDonald et al., arXiv:2305.14683, figure 1"
COHEN = "Cohen et al., arXiv:2103.00065, figure 1"

JACOBIAN = JacobianNorm(outputs="softmax", over="max")
SHARPNESS = Sharpness(tol=0.01)  # an eigenvalue is then good to about four digits
METRICS: tuple[Metric, ...] = (
    Loss(minus_label_entropy=True),
    Accuracy(),
    SHARPNESS,
    JACOBIAN,
    JacobianNorm(outputs="softmax", over="mean"),
)

# What each statement expects of its statistic, fixed before the seeds of the study were run.
FALLS: Interval = (-math.inf, -0.9)  # rank correlation with the smoothing
RISES_TOGETHER: Interval = (0.9, math.inf)  # rank correlation along a run
NEAR_THE_EDGE: Interval = (0.75, 1.25)  # sharpness * lr / 2
MOSTLY: Interval = (0.7, math.inf)  # share of measurements


@dataclass(frozen=True)
class Config:
    """Settings of the study; the defaults run in less than two minutes on two cores."""

    lr: float = 1.0
    """Learning rate at which runs reach 2 / lr."""
    small_lr: float = 0.25
    """Learning rate at which they do not."""
    label_smoothing: tuple[float, ...] = (0.1, 0.3, 0.5, 0.65, 0.8)
    """Levels of label smoothing, increasing."""
    data: Literal["digits", "cifar10"] = "digits"
    """Data set."""
    folder: str = "data/cifar-10-batches-bin"
    """Where the files of CIFAR-10 are."""
    examples: int = 500
    """Examples to train on."""
    chunk: int = 500
    """Examples to go through at a time; all of them are the batch."""
    model: Literal["mlp", "vgg11"] = "mlp"
    """Model."""
    widths: tuple[int, ...] = (48, 48, 48)
    """Widths of the hidden layers of the mlp."""
    activation: Literal["relu", "tanh", "gelu", "elu"] = "gelu"
    """Activation between the layers of the mlp."""
    steps: int = 280
    """Steps at lr; at small_lr as many more as it is smaller."""
    every: int = 8
    """Steps between measurements at lr; at small_lr as many more."""

    def __post_init__(self) -> None:
        levels = self.label_smoothing
        check_settings(
            self,
            [
                (0 < self.small_lr < self.lr < math.inf, "0 < small_lr < lr", ("small_lr", "lr")),
                (all(0 <= a < 1 for a in levels), "levels in [0, 1)", ("label_smoothing",)),
                (len(levels) >= 3, "three or more levels", ("label_smoothing",)),
                (list(levels) == sorted(set(levels)), "increasing levels", ("label_smoothing",)),
                (1 <= self.every <= self.steps, "1 <= every <= steps", ("every", "steps")),
                *network_rules(self),
            ],
        )


# The main text of the paper gives the data, the model, the method and lr. The number of steps, the
# levels of smoothing, the small learning rate and the absence of batch normalisation are ours.
PAPER = Config(
    lr=0.08,
    small_lr=0.02,
    label_smoothing=(0.0, 0.1, 0.25, 0.5, 0.75),
    data="cifar10",
    examples=50_000,
    model="vgg11",
    steps=1000,
    every=20,
)


@dataclass(frozen=True)
class Run:
    """One training run: the settings of the study, narrowed to it."""

    lr: float
    label_smoothing: float
    seed: int
    steps: int
    every: int
    data: str
    folder: str
    examples: int
    chunk: int
    model: str
    widths: tuple[int, ...]
    activation: str

    @property
    def name(self) -> str:
        """Folder of the run."""
        return f"lr{self.lr}-smoothing{self.label_smoothing}-seed{self.seed}"


def plan(config: Config, seeds: int) -> list[Run]:
    """Every smoothing at both learning rates, for the same lr * step; seed by seed."""
    slower = config.lr / config.small_lr
    rhythms = (
        (config.lr, config.steps, config.every),
        (config.small_lr, round(config.steps * slower), max(1, round(config.every * slower))),
    )
    shared = {name: getattr(config, name) for name in NETWORK_SETTINGS}
    return [
        Run(lr, smoothing, seed, steps, every, **shared)
        for seed in fresh(seeds)
        for lr, steps, every in rhythms
        for smoothing in config.label_smoothing
    ]


def run(config: Run, record: Record) -> None:
    """Train with gradient descent and measure on the training set."""
    model, data = build(config, config.seed)
    batches = in_chunks(data.train, config.chunk)
    problem = Problem(
        model, "cross_entropy", batches, label_smoothing=config.label_smoothing, mode="train"
    )
    edge = {SHARPNESS.name: 2 / config.lr}
    tracker = Tracker(problem, METRICS, record, config.every, thresholds=edge)
    record.update(
        data=data.scaling,
        planned_steps=list(range(0, config.steps + 1, config.every)),
    )
    descend(
        problem,
        record,
        lr=config.lr,
        steps=config.steps,
        save_every=10 * config.every,
        at_step=tracker,
    )


# The claims


@dataclass(frozen=True)
class SeedRuns:
    """The records of one seed by learning rate and smoothing."""

    config: Config
    records: dict[tuple[float, float], Record]

    def series(self, lr: float, smoothing: float, metric: Metric) -> tuple[list[int], list[float]]:
        """Steps and values of a metric along a run, as far as they are finite."""
        steps, values = self.records[lr, smoothing].series(metric.name)
        finite = list(itertools.takewhile(math.isfinite, values))
        return steps[: len(finite)], finite

    def peak(self, lr: float, smoothing: float, metric: Metric) -> float:
        """The largest value along a run; infinite if it diverged."""
        _, values = self.series(lr, smoothing, metric)
        return math.inf if self.records[lr, smoothing].status == "diverged" else max(values)

    def falls_with_smoothing(self, lr: float, metric: Metric) -> float:
        """Rank correlation over the runs between smoothing and the peak of a metric."""
        levels = self.config.label_smoothing
        return rank_correlation(levels, [self.peak(lr, a, metric) for a in levels])

    def sharpness_falls_with_smoothing(self) -> float:
        """The same for sharpness at the small learning rate; NaN if a run is at its edge there."""
        small = self.config.small_lr
        peaks = [self.peak(small, a, SHARPNESS) for a in self.config.label_smoothing]
        if max(peaks) >= 2 / small:
            return math.nan
        return self.falls_with_smoothing(small, SHARPNESS)

    def during(self, lr: float, smoothing: float) -> float:
        """Median sharpness while the run at the small learning rate is beyond 2 / config.lr.

        That is, from the first to the last such training time lr * step. NaN where it never is,
        infinite where the run at ``lr`` diverged.
        """
        small, edge = self.config.small_lr, 2 / self.config.lr
        free = zip(*self.series(small, smoothing, SHARPNESS), strict=True)
        beyond = [small * step for step, value in free if value > edge]
        if not beyond:
            return math.nan
        if self.records[lr, smoothing].status == "diverged":
            return math.inf
        held = zip(*self.series(lr, smoothing, SHARPNESS), strict=True)
        values = [value for step, value in held if beyond[0] <= lr * step <= beyond[-1]]
        return statistics.median(values) if values else math.nan

    def at_the_edge(self, lr: float, edge: float) -> float:
        """Sharpness in units of ``edge`` while nothing would keep it below 2 / config.lr.

        Mean over the smoothings for which the small learning rate, with nothing to hold it, is
        itself out of the range that counts as near 2 / config.lr.
        """
        small, far = self.config.small_lr, NEAR_THE_EDGE[1] * 2 / self.config.lr
        free_runs = [a for a in self.config.label_smoothing if self.during(small, a) > far]
        ratios = [self.during(lr, a) / edge for a in free_runs]
        return statistics.fmean(ratios) if ratios else math.nan

    def stays(self, lr: float) -> float:
        """The share of measurements near 2 / config.lr since sharpness first was there.

        Over all runs at ``lr`` that get there; 0 if one of them diverges.
        """
        low, high = NEAR_THE_EDGE
        found: list[bool] = []
        for smoothing in self.config.label_smoothing:
            if self.records[lr, smoothing].status == "diverged":
                return 0.0
            ratios = [
                value * self.config.lr / 2 for value in self.series(lr, smoothing, SHARPNESS)[1]
            ]
            since = itertools.dropwhile(lambda ratio: ratio < 1, ratios)
            found += [low <= ratio <= high for ratio in since]
        return statistics.fmean(found) if found else math.nan

    def rise_together(self, whole: bool = False) -> float:
        """Mean over runs of the rank correlation between Jacobian norm and sharpness.

        Over the runs that reach 2 / lr after five or more measurements, up to that; or over all of
        the ``whole`` runs.
        """
        correlations = []
        for lr, smoothing in self.records:
            _, sharpness = self.series(lr, smoothing, SHARPNESS)
            _, jacobian = self.series(lr, smoothing, JACOBIAN)
            reached = [i for i, value in enumerate(sharpness) if value >= 2 / lr]
            if whole:
                correlations.append(rank_correlation(jacobian, sharpness))
            elif reached and reached[0] >= 4:
                before = slice(reached[0] + 1)
                correlations.append(rank_correlation(jacobian[before], sharpness[before]))
        return statistics.fmean(correlations) if correlations else math.nan


def claims(config: Config, records: Sequence[Record]) -> list[Claim]:
    """The verdicts, over the seeds all of whose runs are complete."""
    by_seed: dict[int, dict[tuple[float, float], Record]] = {}
    for record in records:
        run_config = record.config
        place = (run_config["lr"], run_config["label_smoothing"])
        by_seed.setdefault(run_config["seed"], {})[place] = record
    wanted = 2 * len(config.label_smoothing)
    seeds = [SeedRuns(config, runs) for _, runs in sorted(by_seed.items()) if len(runs) == wanted]

    whole = statistics.fmean([seed.rise_together(whole=True) for seed in seeds] or [math.nan])
    edge = 2 / config.lr
    small_edge = 2 / config.small_lr
    unheld = statistics.fmean(
        [seed.at_the_edge(config.small_lr, edge) for seed in seeds] or [math.nan]
    )
    edge_measured = (
        "sharpness * lr / 2: its median over the training time lr * step in which the run at "
        f"lr = {config.small_lr:g} is beyond {edge:g}, averaged over the smoothings for which that "
        f"run's own median is then beyond {NEAR_THE_EDGE[1]:g} times {edge:g}"
    )
    stay_measured = (
        f"{seeds_with(MOSTLY)} share of the measurements, since sharpness first is {edge:g} or "
        f"more, at which it is {NEAR_THE_EDGE[0]:g} to {NEAR_THE_EDGE[1]:g} times that; over the "
        "runs of a seed that get there"
    )
    return [
        claim_of_seeds(
            "jacobian_falls_with_smoothing",
            statement="More label smoothing gives a smaller maximum Jacobian norm of the softmaxed "
            "model.",
            source=PAPER_A,
            measured=f"{seeds_with(FALLS)} rank correlation over its runs between label smoothing "
            f"and the largest softmax Jacobian norm of the run, at lr = {config.lr:g}",
            values=[seed.falls_with_smoothing(config.lr, JACOBIAN) for seed in seeds],
            inside=FALLS,
        ),
        claim_of_seeds(
            "sharpness_falls_with_smoothing",
            statement="More label smoothing gives a smaller maximum sharpness where the edge of "
            "stability is not reached.",
            source=PAPER_A,
            measured=f"{seeds_with(FALLS)} rank correlation over its runs between label smoothing "
            f"and the largest sharpness of the run, at lr = {config.small_lr:g}",
            values=[seed.sharpness_falls_with_smoothing() for seed in seeds],
            inside=FALLS,
        ),
        claim_over_seeds(
            "arrested_at_the_edge",
            statement="At the large learning rate, the runs that would sharpen beyond 2 / lr are "
            "held near it.",
            source=COHEN,
            measured=edge_measured,
            values=[seed.at_the_edge(config.lr, edge) for seed in seeds],
            expected=NEAR_THE_EDGE,
            note=""
            if math.isnan(unheld)
            else f"At lr = {config.small_lr:g}, which does not hold them, the same runs are at "
            f"{unheld:.2f} times {edge:g} in that time.",
        ),
        claim_of_seeds(
            "stays_at_the_edge",
            statement="Sharpness that has reached 2 / lr stays near it to the end of training.",
            source=COHEN,
            measured=f"{stay_measured}, at lr = {config.lr:g}",
            values=[seed.stays(config.lr) for seed in seeds],
            inside=MOSTLY,
        ),
        claim_of_seeds(
            "rise_together",
            statement="Before the edge of stability, Jacobian norm and sharpness rise together.",
            source=PAPER_A,
            measured=f"{seeds_with(RISES_TOGETHER)} rank correlation along a run between the "
            "largest softmax Jacobian norm and sharpness until it reaches 2 / lr; mean over the "
            "runs of a seed that reach it",
            values=[seed.rise_together() for seed in seeds],
            inside=RISES_TOGETHER,
            note="" if math.isnan(whole) else f"Over the whole of all runs it is {whole:.2f}.",
        ),
        claim_over_seeds(
            "control_small_learning_rate",
            statement="Negative control: the same runs are held near 2 / lr at the small learning "
            "rate, too.",
            source="made to fail",
            measured=edge_measured,
            values=[seed.at_the_edge(config.small_lr, small_edge) for seed in seeds],
            expected=NEAR_THE_EDGE,
            control=True,
        ),
        claim_of_seeds(
            "control_stays_at_small_lr",
            statement=f"Negative control: sharpness that has reached {edge:g} stays near it at the "
            "small learning rate, too.",
            source="made to fail",
            measured=f"{stay_measured}, at lr = {config.small_lr:g}",
            values=[seed.stays(config.small_lr) for seed in seeds],
            inside=MOSTLY,
            control=True,
        ),
    ]


def summary(config: Config, found: Sequence[Claim]) -> str:
    """The result in a sentence or two."""
    shown = sum(claim.verdict == "shown" for claim in found if not claim.control)
    total = sum(not claim.control for claim in found)
    edge = next(claim for claim in found if claim.id == "arrested_at_the_edge")
    controls = [claim for claim in found if claim.control]
    failed = sum(claim.as_expected for claim in controls)
    return (
        f"{shown} of {total} statements are shown on {config.data} with full-batch gradient "
        f"descent. While runs at lr = {config.small_lr:g} are beyond {2 / config.lr:g}, the edge "
        f"of stability 2/lr for lr = {config.lr:g}, the median sharpness of runs at that "
        f"learning rate is {edge.statistic:.2f} times it. {failed} of {len(controls)} negative "
        "controls fail, as they should."
    )


STUDY = Study(
    name="progressive_sharpening",
    title="Progressive sharpening and the edge of stability under label smoothing",
    source=PAPER_A,
    Config=Config,
    paper=PAPER,
    plan=plan,
    run=run,
    claims=claims,
    summary=summary,
    figure={
        "columns": "lr",
        "colour": "label_smoothing",
        "panels": [
            {"metric": METRICS[0].name, "label": "loss - label entropy", "log": True},
            {"metric": "sharpness", "label": "sharpness", "log": True, "threshold": "2/lr"},
            {"metric": JACOBIAN.name, "label": "largest softmax\nJacobian norm", "log": True},
        ],
    },
)
