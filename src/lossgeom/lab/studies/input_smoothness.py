"""Flat minima of SGD and the smoothness of the model in its input.

Ma and Ying (arXiv:2105.13462) call a minimum stable for SGD if the noise of the batches does not
drive it away. That bounds the gradients in the parameters on the data, the more the larger the
learning rate and the smaller the batch. Parameters of the first layer multiply with the input, so
gradients in the input are bounded, too. In their scatter plot, trained networks lie on one
increasing cloud of g_W and g_x, the seminorms in the parameters and in the input, and larger
learning rates and smaller batches are to the lower left.

It is tried here on a grid of learning rates and batch sizes. Each run ends where it interpolates:
at the first measurement with a training loss below ``interpolation``, the same for all, since the
seminorms grow while the loss falls. A run that does not get there, or diverges, is left out of all
statements but the inequality, which holds everywhere, and the report lists it.

All that follows was fixed on seeds 100 to 103, before any other was run; that the inequality is
judged by the worst of all seeds, and the rest by the share of seeds, before seeds 10, 11, ... were
run, which are those of the study. Seen there:

- Spearman's correlation of g_W and g_x is .99 for k = 1, .94 to .97 for k = 2 and .89 for k = 3;
  that of g_x and the test loss is .77 to .98.
- For k = 2, points leave the cloud at a learning rate of .8. The inequality ties g_x to gradients
  in the weights of the first layer, and there those are a small part of g_W: of the sum of fourth
  powers they make .1 to .3 up to .4, but .01 to .06 at .8 (seed 100).
- At .8, three of four runs with the smallest batch diverge, and the fourth loses all of its units.
  All others interpolate, after 500 to 5,000 steps. At .8, the batch size matters less: the rank
  correlation with it is .41, at smaller learning rates .94 or more.
- The full batch makes no noise. There the learning rate matters by the edge of stability: up to .2,
  runs end with a sharpness of 6.7 to 7.8; at .4 and .8, with about 2 / lr.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from lossgeom.lab.studies._descent import go_on
from lossgeom.lab.studies._network import (
    build_with_signs,
    check_settings,
    in_chunks,
    network_rules,
)
from lossgeom.lab.studies._smoothness_claims import PAPER_B, claims, left_out, summary
from lossgeom.lab.studies._smoothness_metrics import AT_END, G_W, G_X, LOSS, ORDERS, TEST_LOSS
from lossgeom.lab.studies._study import Study, fresh
from lossgeom.lab.training import sgd
from lossgeom.problem import Problem
from lossgeom.recording.record import Record
from lossgeom.recording.tracker import Tracker


@dataclass(frozen=True)
class Config:
    """Settings of the study; the defaults run in about a minute on two cores."""

    lr: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4, 0.8)
    """Learning rates, increasing."""
    batch_size: tuple[int, ...] = (4, 10, 40, 200)
    """Batch sizes, increasing; each with every learning rate."""
    interpolation: float = 3e-4
    """Training loss below which a run interpolates, and ends."""
    steps: int = 6_000
    """Steps after which a run ends that does not, and is left out."""
    every: int = 100
    """Steps between measurements of the loss."""
    data: Literal["digits", "cifar10"] = "digits"
    """Data set: even and odd digits, or airplanes and automobiles."""
    folder: str = "data/cifar-10-batches-bin"
    """Where the files of CIFAR-10 are."""
    examples: int = 200
    """Examples to train on."""
    chunk: int = 2_000
    """Examples to measure at a time."""
    model: Literal["mlp", "vgg11"] = "mlp"
    """Model."""
    widths: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers of the mlp."""
    activation: Literal["relu", "tanh", "gelu", "elu"] = "relu"
    """Activation between the layers of the mlp."""

    def __post_init__(self) -> None:
        rates, sizes = self.lr, self.batch_size
        check_settings(
            self,
            [
                (all(0 < lr < math.inf for lr in rates), "learning rates > 0", ("lr",)),
                (_increase(rates), "three or more increasing learning rates", ("lr",)),
                (_increase(sizes), "three or more increasing batch sizes", ("batch_size",)),
                (
                    1 <= min(sizes) <= max(sizes) <= self.examples,
                    "batch sizes of 1 to examples",
                    ("batch_size", "examples"),
                ),
                (0 < self.interpolation < math.inf, "interpolation > 0", ("interpolation",)),
                (1 <= self.every <= self.steps, "1 <= every <= steps", ("every", "steps")),
                (
                    self.steps % max(self.every, 1) == 0,
                    "steps a multiple of every",
                    ("every", "steps"),
                ),
                *network_rules(self),
            ],
        )


def _increase(levels: tuple[float, ...]) -> bool:
    return len(levels) >= 3 and list(levels) == sorted(set(levels))


# Of the paper's code are the two classes with 500 examples each, the network, the number of steps
# and the range of batch sizes. It has two outputs with one-hot targets and torch's MSELoss; one
# output with targets 1 and -1, the loss, the learning rates and the rule are ours.
PAPER = Config(
    lr=(0.01, 0.02, 0.05),
    batch_size=(10, 20, 30, 40, 50),
    data="cifar10",
    examples=1000,
    widths=(500, 500, 500),
)


@dataclass(frozen=True)
class Run:
    """One training run of the study."""

    lr: float
    batch_size: int
    seed: int
    study: Config

    @property
    def name(self) -> str:
        """Folder of the run."""
        return f"lr{self.lr}-batch{self.batch_size}-seed{self.seed}"

    @property
    def steps(self) -> int:
        """Steps to train at most."""
        return self.study.steps


def plan(config: Config, seeds: int) -> list[Run]:
    """Every learning rate with every batch size, seed by seed."""
    return [
        Run(lr, batch_size, seed, config)
        for seed in fresh(seeds)
        for lr in config.lr
        for batch_size in config.batch_size
    ]


def run(config: Run, record: Record) -> None:
    """Train with SGD until the training set is interpolated, and measure there."""
    study = config.study
    model, data = build_with_signs(study, config.seed)
    problem, held_out = (
        Problem(model, "squared_error", in_chunks(part, study.chunk))
        for part in (data.train, data.test)
    )
    losses = (
        Tracker(problem, [LOSS], record, study.every, {LOSS.name: study.interpolation}),
        Tracker(held_out, [TEST_LOSS], record, study.every),
    )
    at_end = Tracker(problem, AT_END, record)
    record.update(
        data=data.scaling,
        planned_steps=list(range(0, study.steps + 1, study.every)),
        planned_at_end=[metric.name for metric in AT_END],
    )

    def training(first: int) -> Iterator[int]:
        return sgd(
            model, "squared_error", data.train, lr=config.lr, batch_size=config.batch_size,
            steps=study.steps, seed=config.seed, first=first,
        )  # fmt: skip

    def interpolates(step: int) -> bool:
        if step % study.every:
            return False
        values = dict(zip(*record.series(LOSS.name), strict=True))
        return bool(values[step] < study.interpolation)

    def at_step(step: int) -> None:
        for tracker in losses:
            tracker(step)
        if step == study.steps or interpolates(step):
            at_end(step)

    ended = go_on(
        model, record, training, steps=study.steps, save_every=10 * study.every,
        at_step=at_step, reached=interpolates,
    )  # fmt: skip
    if reason := left_out(record):
        record.update(left_out=reason)
    record.finish(ended)


STUDY = Study(
    name="input_smoothness",
    title="Flat minima of SGD and smoothness in the input",
    source=PAPER_B,
    Config=Config,
    paper=PAPER,
    plan=plan,
    run=run,
    claims=claims,
    summary=summary,
    figure={
        "columns": "batch_size",
        "colour": "lr",
        "panels": [
            {"metric": LOSS.name, "label": "loss", "log": True, "threshold": "interpolation"},
            {"metric": TEST_LOSS.name, "label": "test loss", "log": True},
        ],
    },
    scatter={
        "colour": "lr",
        "size": "batch_size",
        "caption": "Seeds are drawn together; the claims compare the runs of one seed.",
        "panels": [
            *(
                {
                    "x": {"metric": G_W[k].name, "label": f"g_W, in the parameters, k = {k}"},
                    "y": {"metric": G_X[k].name, "label": f"g_x, in the input, k = {k}"},
                }
                for k in ORDERS
            ),
            {
                "x": {"metric": G_X[1].name, "label": "g_x, in the input, k = 1"},
                "y": {"metric": TEST_LOSS.name, "label": "test loss"},
            },
        ],
    },
)
