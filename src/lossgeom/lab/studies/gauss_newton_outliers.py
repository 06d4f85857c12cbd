"""The outliers of the Hessian: how many they are, and whether they are the Gauss-Newton matrix's.

The ansatz of MacDonald, Valmadre and Lucey (arXiv:2305.14683, section 3) argues from the Jacobian
to the sharpness by way of the Gauss-Newton matrix G. Its premise is that the outliers of the
Hessian H = G + residual are those of G, throughout training. Papyan (arXiv:1811.07062) and Sagun et
al. (arXiv:1611.07476) count about as many as there are classes C; G has the more reason for C - 1,
since no loss of softmaxed outputs changes along (1, ..., 1).

Both statements are tried at initialisation, in mid-training and at the end, on real labels and on
the same labels shuffled. Shuffling cannot act on G at initialisation, because labels do not enter
the curvature of cross-entropy in the outputs; there it acts through the residual alone.

All that follows was fixed on seeds 100 to 103, before any other was run; that numbers of outliers
are judged by the share of seeds, and the rest by the median over seeds, before seeds 10, 11, ...
were run, which are those of the study. Seen there:

- At initialisation G has C - 1 outliers, beyond a gap of 16 to 20. H has none with real labels,
  where the residual is as large as G, and C - 1 with shuffled ones, where it is smaller.
- In mid-training, at an accuracy of 0.9, H has C - 1 with real labels and none with shuffled ones.
- At the end H and G agree, but nothing is left of the gap after C - 1, with either labels.
- Where H has C - 1 outliers, they lie beyond a gap of 1.9 to 2.5; where it has not, its largest gap
  is at most 1.5, after the second to fourth eigenvalue at the end. Hence GAP. Without it, a bulk
  would have outliers up to wherever its largest gap happens to be. What stands alone in a smoothed
  density cannot be counted instead: the largest few of any heavy tail do.

The statements are kept as the papers make them, also where these seeds had them fail.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from lossgeom.claim import Claim, Interval
from lossgeom.curvature import GaussNewton, Hessian, Residual
from lossgeom.estimate import Estimate
from lossgeom.lab.outliers import Tops, overlap
from lossgeom.lab.statistics import claim_of_seeds, claim_over_seeds
from lossgeom.lab.studies._descent import descend
from lossgeom.lab.studies._network import (
    build,
    check_settings,
    in_chunks,
    network_rules,
)
from lossgeom.lab.studies._study import Study, fresh
from lossgeom.linalg import spectral_density, top_eigenpairs
from lossgeom.metrics import Accuracy, Loss, Metric
from lossgeom.problem import Problem
from lossgeom.recording.record import Record
from lossgeom.recording.tracker import Tracker

MACDONALD = "MacDonald et al., arXiv:2305.14683, section 3"
PAPYAN = "Papyan, arXiv:1811.07062; Sagun et al., arXiv:1611.07476"

CLASSES = 10  # of digits and of CIFAR-10
MOST = CLASSES - 1  # the outliers that there should be

# What each statement expects of its statistic, fixed before the seeds of the study were run.
GAP = 1.5  # an outlier is at least so many times what lies below
ABOUT_C_MINUS_1: Interval = (MOST - 1, MOST + 1)  # outliers
SAME_SPACE: Interval = (0.9, math.inf)  # mean squared cosine
SAME_VALUES: Interval = (-math.inf, 0.1)  # largest relative difference
MID_TRAINING = 0.9  # accuracy

TOL = 0.01  # an eigenvalue is then good to about four digits
POINTS = ("initialisation", "mid-training", "end")
IN_WORDS = dict(zip(POINTS, ("at initialisation", "in mid-training", "at the end"), strict=True))


@dataclass(frozen=True)
class Config:
    """Settings of the study; the defaults run in less than two minutes on two cores."""

    lr: float = 0.5
    """Learning rate of full-batch gradient descent."""
    steps: int = 800
    """Steps to train; shuffled labels need more of them than real ones."""
    every: int = 20
    """Steps between measurements."""
    pairs: int = 20
    """Largest eigenpairs among which outliers are looked for."""
    probes: int = 10
    """Random vectors for a spectral density."""
    lanczos_steps: int = 80
    """Lanczos steps for a spectral density."""
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
    widths: tuple[int, ...] = (48, 48)
    """Widths of the hidden layers of the mlp."""
    activation: Literal["relu", "tanh", "gelu", "elu"] = "relu"
    """Activation between the layers of the mlp."""

    def __post_init__(self) -> None:
        check_settings(
            self,
            [
                (0 < self.lr < math.inf, "lr > 0", ("lr",)),
                (1 <= self.every <= self.steps, "1 <= every <= steps", ("every", "steps")),
                (
                    self.steps % max(self.every, 1) == 0,
                    "steps a multiple of every",
                    ("every", "steps"),
                ),
                (self.pairs >= 2 * MOST, f"pairs >= {2 * MOST}, twice C - 1", ("pairs",)),
                (self.probes >= 2, "two probes or more", ("probes",)),
                (self.lanczos_steps >= 1, "lanczos_steps >= 1", ("lanczos_steps",)),
                *network_rules(self),
            ],
        )


# The main text of the paper gives the data, the model, the method and lr; the rest is ours. The
# bases for so many pairs of so large a model take about 5 GB.
PAPER = Config(
    lr=0.08, data="cifar10", examples=50_000, model="vgg11", steps=4000, every=100, probes=2
)


@dataclass(frozen=True)
class Run:
    """One training run of the study."""

    labels: Literal["real", "shuffled"]
    seed: int
    densities: bool
    study: Config

    @property
    def name(self) -> str:
        """Folder of the run."""
        return f"{self.labels}-seed{self.seed}"

    @property
    def steps(self) -> int:
        """Steps to train."""
        return self.study.steps


def plan(config: Config, seeds: int) -> list[Run]:
    """Real and shuffled labels, seed by seed; spectral densities, to look at, of the first."""
    labels: tuple[Literal["real", "shuffled"], ...] = ("real", "shuffled")
    every = fresh(seeds)
    return [Run(each, seed, seed == every[0], config) for seed in every for each in labels]


# What is measured


def tops(problem: Problem, pairs: int) -> Tops:
    """The largest eigenpairs of both matrices."""
    solve = partial(top_eigenpairs, k=pairs, tol=TOL)
    return Tops(solve(Hessian(problem)), solve(GaussNewton(problem)), MOST, GAP)


@dataclass(frozen=True)
class Comparison:
    """A metric: one of the numbers of :class:`lossgeom.lab.outliers.Tops`."""

    name: str
    pairs: int

    def __call__(self, problem: Problem) -> Estimate:
        """Measure."""
        found = problem.cached(tops, self.pairs)
        value = found.numbers()[self.name]
        return Estimate(value, converged=found.converged, matvecs=found.matvecs)


def run(config: Run, record: Record) -> None:
    """Train with gradient descent and compare the two matrices on the training set."""
    study = config.study
    model, data = build(study, config.seed)
    inputs, targets = data.train
    if config.labels == "shuffled":
        generator = torch.Generator().manual_seed(config.seed)
        targets = targets[torch.randperm(len(targets), generator=generator)]
    batches = in_chunks((inputs, targets), study.chunk)
    problem = Problem(model, "cross_entropy", batches, mode="train")
    metrics: list[Metric] = [Loss(), Accuracy()]
    metrics += [Comparison(name, study.pairs) for name in ("outliers", "overlap", "difference")]
    tracker = Tracker(problem, metrics, record, study.every, thresholds={"outliers": MOST})
    record.update(
        data=data.scaling,
        planned_steps=list(range(0, study.steps + 1, study.every)),
        spectra=[array_name(point) for point in POINTS],
    )

    def at_step(step: int) -> None:
        tracker(step)
        for point in reached(record, step, study.steps):
            save_spectra(problem.refreshed(), config, record, point, step)

    every = 10 * study.every
    descend(problem, record, lr=study.lr, steps=study.steps, save_every=every, at_step=at_step)


def array_name(point: str) -> str:
    """Under which a record holds the spectra at a point of training."""
    return f"spectrum-{point}"


def series(record: Record, metric: str) -> list[tuple[int, float]]:
    """Steps and values together."""
    return list(zip(*record.series(metric), strict=True))


def first_accurate(record: Record) -> int | None:
    """The step of mid-training; None if training has not got there."""
    accurate = (at for at, value in series(record, "accuracy") if value >= MID_TRAINING)
    return next(accurate, None)


def reached(record: Record, step: int, last: int) -> list[str]:
    """The points of training that a step is, as far as they are not in the record yet."""
    if not math.isfinite(dict(series(record, "accuracy")).get(step, math.nan)):
        return []
    at = dict(zip(POINTS, (0, first_accurate(record), last), strict=True))
    return [p for p in POINTS if at[p] == step and record.load_arrays(array_name(p)) is None]


def save_spectra(problem: Problem, config: Run, record: Record, point: str, step: int) -> None:
    """The numbers that the claims are made of, and the spectra that the report draws."""
    found = tops(problem, config.study.pairs)
    residual = top_eigenpairs(Residual(problem), MOST, which="magnitude", tol=TOL)
    known = found.converged and bool(residual.converged.all())
    arrays = {
        "hessian_values": found.hessian.values,
        "gauss_newton_values": found.gauss_newton.values,
    }
    if config.densities:
        arrays |= densities(problem, config)
    record.save_arrays(
        array_name(point),
        arrays,
        **found.numbers(),
        overlap_with_residual=overlap(found.space, residual.vectors) if known else math.nan,
        row=f"{point}, step {step}",
        column=f"{config.labels} labels",
        matrices={"hessian": "Hessian", "gauss_newton": "Gauss-Newton matrix"},
        marked=MOST,
        marked_as="C - 1",
    )


def densities(problem: Problem, config: Run) -> dict[str, Tensor]:
    """The spectral densities of both matrices as arrays."""
    probes, steps = config.study.probes, config.study.lanczos_steps
    arrays: dict[str, Tensor] = {}
    for name, matrix in (("hessian", Hessian(problem)), ("gauss_newton", GaussNewton(problem))):
        found = spectral_density(matrix, probes=probes, steps=steps, seed=config.seed)
        arrays |= {f"{name}_{part}": getattr(found, part) for part in ("grid", "density", "stderr")}
        one = 1 / (found.size * found.width * math.sqrt(2 * math.pi))  # the height of an eigenvalue
        arrays[f"{name}_one_eigenvalue"] = torch.tensor(one)
    return arrays


# The claims


@dataclass(frozen=True)
class Seeds:
    """The records of the seeds that have a run with either labels."""

    records: dict[int, dict[str, Record]]

    @classmethod
    def of(cls, records: Sequence[Record]) -> Seeds:
        """Sorted by seed."""
        found: dict[int, dict[str, Record]] = {}
        for record in records:
            found.setdefault(record.config["seed"], {})[record.config["labels"]] = record
        return cls({seed: runs for seed, runs in sorted(found.items()) if len(runs) == 2})

    def values(self, labels: str, point: str, number: str) -> list[float]:
        """A number of each seed at a point of training; NaN where training did not get there."""
        found = [runs[labels].load_arrays(array_name(point)) for runs in self.records.values()]
        return [math.nan if arrays is None else float(arrays[1][number]) for arrays in found]

    def mean(self, labels: str, point: str, number: str) -> str:
        """Over the seeds that have one, for a note."""
        known = [x for x in self.values(labels, point, number) if not math.isnan(x)]
        return f"{math.fsum(known) / len(known):.3g}" if known else "not known"

    def share_that_stays(self) -> str:
        """Of the measurements on real labels after mid-training, how many have about C - 1."""
        found = []
        for runs in self.records.values():
            record = runs["real"]
            accurate = first_accurate(record)
            later = [
                n for at, n in series(record, "outliers") if accurate is not None and at > accurate
            ]
            found += [ABOUT_C_MINUS_1[0] <= n <= ABOUT_C_MINUS_1[1] for n in later]
        return f"{sum(found)} of {len(found)}"


def claims(config: Config, records: Sequence[Record]) -> list[Claim]:
    """The verdicts, over the seeds both of whose runs are complete."""
    seeds = Seeds.of(records)
    number = partial(
        _claim,
        seeds,
        "outliers",
        make=claim_of_seeds,
        measured=f"share of seeds with {ABOUT_C_MINUS_1[0]} to {ABOUT_C_MINUS_1[1]} outliers, "
        f"given for each seed: how many of the {config.pairs} largest eigenvalues of the "
        "Hessian lie above the largest relative gap between neighbours; none where no eigenvalue "
        f"is {GAP:g} times the next",
        inside=ABOUT_C_MINUS_1,
    )
    space = partial(_claim, seeds, expected=SAME_SPACE)
    return [
        *(_number(number, seeds, point) for point in POINTS),
        *(_space(space, point) for point in POINTS),
        *(_values(seeds, point) for point in POINTS),
        *_shuffled(number),
        *_other_spaces(space),
    ]


ABOUT = f"about C - 1 = {MOST} outliers."
SPACE = "mean squared cosine between the space of the Hessian's C - 1 largest eigenpairs and "
Make = Callable[..., Claim]


def _number(number: Make, seeds: Seeds, point: str) -> Claim:
    note = (
        "The same count for the Gauss-Newton matrix gives "
        f"{seeds.mean('real', point, 'gauss_newton_outliers')}."
    )
    if point == POINTS[1]:
        note += f" After that it is so at {seeds.share_that_stays()} measurements over all seeds."
    return number(
        point,
        f"number_{slug(point)}",
        statement=f"{IN_WORDS[point].capitalize()}, the Hessian has {ABOUT}",
        source=PAPYAN,
        note=note,
    )


def _space(space: Make, point: str) -> Claim:
    return space(
        "overlap",
        point,
        f"same_space_{slug(point)}",
        statement=f"{IN_WORDS[point].capitalize()}, the outliers' eigenvectors span the same space "
        "as those of the Gauss-Newton matrix.",
        source=MACDONALD,
        measured=f"{SPACE}that of the Gauss-Newton matrix",
    )


def _values(seeds: Seeds, point: str) -> Claim:
    return _claim(
        seeds,
        "difference",
        point,
        f"same_values_{slug(point)}",
        statement=f"{IN_WORDS[point].capitalize()}, the outliers are those of the Gauss-Newton "
        "matrix.",
        source=MACDONALD,
        measured="largest relative difference between the i-th eigenvalues of the two matrices, "
        "i = 1, ..., C - 1",
        expected=SAME_VALUES,
    )


def _shuffled(number: Make) -> list[Claim]:
    first, middle, _ = POINTS
    return [
        number(
            first,
            f"shuffled_number_{slug(first)}",
            labels="shuffled",
            statement="At initialisation with shuffled labels, which leave the Gauss-Newton matrix "
            f"as it is and make the residual smaller, the Hessian has {ABOUT}",
            source="this study, to explain number_at_initialisation",
        ),
        number(
            middle,
            f"control_shuffled_number_{slug(middle)}",
            labels="shuffled",
            statement=f"Negative control: in mid-training on shuffled labels it, too, has {ABOUT}",
            source="made to fail",
            control=True,
        ),
    ]


def _other_spaces(space: Make) -> list[Claim]:
    middle, same = POINTS[1], "the outliers' eigenvectors span the same space as"
    control = partial(space, source="made to fail", control=True)
    return [
        control(
            "overlap_with_next",
            middle,
            f"control_next_space_{slug(middle)}",
            statement=f"Negative control: in mid-training, {same} the next C - 1 eigenvectors of "
            "the Gauss-Newton matrix.",
            measured=f"{SPACE}that of the C - 1 pairs of the Gauss-Newton matrix after those",
        ),
        control(
            "overlap_with_residual",
            middle,
            f"control_residual_space_{slug(middle)}",
            statement=f"Negative control: in mid-training, {same} those of the residual.",
            measured=f"{SPACE}that of the C - 1 pairs of the residual of largest magnitude",
        ),
    ]


def slug(point: str) -> str:
    """A point of training in the name of a claim."""
    return IN_WORDS[point].replace(" ", "_").replace("-", "_")


def _claim(
    seeds: Seeds,
    number: str,
    point: str,
    name: str,
    *,
    labels: str = "real",
    make: Make = claim_over_seeds,
    **parts: Any,
) -> Claim:
    """About a number at a point of training; a note says what it is for the other labels."""
    other = "shuffled" if labels == "real" else "real"
    note = f"With {other} labels: {seeds.mean(other, point, number)}. {parts.pop('note', '')}"
    return make(name, values=seeds.values(labels, point, number), note=note.strip(), **parts)


def summary(config: Config, found: Sequence[Claim]) -> str:
    """The result in a sentence or two."""
    by_id = {claim.id: claim for claim in found}

    def along(kind: str) -> str:
        each = [by_id[f"{kind}_{slug(point)}"] for point in POINTS]
        parts = [
            f"{_median(claim)} {IN_WORDS[point]} ({claim.verdict})"
            for claim, point in zip(each, POINTS, strict=True)
        ]
        return f"{parts[0]}, {parts[1]} and {parts[2]}"

    control = by_id[f"control_shuffled_number_{slug(POINTS[1])}"]
    return (
        f"On {config.data}, the Hessian has {along('number')} outliers in the median of seeds, for "
        f"C - 1 = {MOST}. The overlap of their space with the Gauss-Newton matrix's is "
        f"{along('same_space')}. In mid-training on shuffled labels there are "
        f"{_median(control)} outliers."
    )


def _median(claim: Claim) -> str:
    return f"{statistics.median(claim.per_seed or [math.nan]):.3g}"


STUDY = Study(
    name="gauss_newton_outliers",
    title="The outliers of the Hessian and those of the Gauss-Newton matrix",
    source=f"{MACDONALD}; {PAPYAN}",
    Config=Config,
    paper=PAPER,
    plan=plan,
    run=run,
    claims=claims,
    summary=summary,
    figure={
        "columns": None,
        "colour": "labels",
        "panels": [
            {"metric": "loss", "label": "loss", "log": True},
            {"metric": "accuracy", "label": "accuracy", "log": False},
            {
                "metric": "outliers",
                "label": "outliers of\nthe Hessian",
                "log": False,
                "threshold": "C - 1",
            },
            {"metric": "overlap", "label": "overlap of\neigenspaces", "log": False},
            {"metric": "difference", "label": "largest relative\ndifference", "log": True},
        ],
    },
)
