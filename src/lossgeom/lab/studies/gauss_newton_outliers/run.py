"""Training on real and on shuffled labels, and the spectra at three points of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from lossgeom.curvature import GaussNewton, Hessian, Residual
from lossgeom.estimate import Estimate
from lossgeom.lab.studies._network import build, in_chunks, on_first
from lossgeom.lab.studies._study import FIRST_SEED, SeedRun
from lossgeom.lab.studies._training import train
from lossgeom.lab.studies.gauss_newton_outliers.config import (
    GAP,
    MID_TRAINING,
    MOST,
    POINTS,
    Config,
)
from lossgeom.lab.studies.gauss_newton_outliers.outliers import Tops, overlap
from lossgeom.lab.training import gradient_descent
from lossgeom.linalg import spectral_density, top_eigenpairs
from lossgeom.metrics import Accuracy, Loss
from lossgeom.problem import Problem
from lossgeom.recording.drawings import save_drawing
from lossgeom.recording.for_report import ForReport, Spectra
from lossgeom.recording.record import Record
from lossgeom.recording.tracker import Tracker

TOL = 0.01  # an eigenvalue is then good to about four digits


def run(run: SeedRun[Config], record: Record) -> None:
    """Train with gradient descent and compare the two matrices on the training set."""
    study = run.study
    model, data = build(study.network, run.seed)
    inputs, targets = data.train
    if run.place["labels"] == "shuffled":
        generator = torch.Generator().manual_seed(run.seed)
        targets = targets[torch.randperm(len(targets), generator=generator)]
    batches = in_chunks((inputs, targets), study.network.chunk)
    problem = Problem(model, "cross_entropy", batches, mode="train")
    some = on_first(problem, study.measured_on, study.network.examples)
    compared = [Comparison(name, study.pairs) for name in ("outliers", "overlap", "difference")]
    trackers = (
        Tracker(problem, [Loss(), Accuracy()], record, study.every),
        Tracker(some, compared, record, study.every, thresholds={"outliers": MOST}),
    )
    record.update(data=data.scaling)
    record.describe(ForReport(spectra=tuple(map(array_name, POINTS))))

    def at_step(step: int) -> None:
        for tracker in trackers:
            tracker(step)
        for point in reached(record, step, study.steps):
            save_spectra(some.refreshed(), run, record, point, step)

    training = partial(
        gradient_descent, model, problem.criterion, batches, lr=study.lr, steps=study.steps
    )
    ended = train(
        model, record, training, steps=study.steps, every=study.every, at_step=at_step
    )  # fmt: skip
    record.finish(ended)


def tops(problem: Problem, pairs: int) -> Tops:
    """The largest eigenpairs of both matrices."""
    solve = partial(top_eigenpairs, k=pairs, tol=TOL)
    return Tops(solve(Hessian(problem)), solve(GaussNewton(problem)), MOST, GAP)


@dataclass(frozen=True)
class Comparison:
    """A metric: one of the numbers of :class:`Tops`."""

    name: str
    pairs: int

    def __call__(self, problem: Problem) -> Estimate:
        """Measure."""
        found = problem.cached(tops, self.pairs)
        value = found.numbers()[self.name]
        return Estimate(value, converged=found.converged, matvecs=found.matvecs)


# The points of training


def array_name(point: str) -> str:
    """The name under which a record holds the spectra at a point of training."""
    return f"spectrum-{point}"


def series(record: Record, metric: str) -> dict[int, float]:
    """The values of a metric, by step."""
    return dict(zip(*record.series(metric), strict=True))


def first_accurate(record: Record) -> int | None:
    """The step of mid-training; None if training has not got there."""
    accurate = (at for at, value in series(record, "accuracy").items() if value >= MID_TRAINING)
    return next(accurate, None)


def reached(record: Record, step: int, last: int) -> list[str]:
    """The points of training that a step is, as far as they are not in the record yet."""
    if not math.isfinite(series(record, "accuracy").get(step, math.nan)):
        return []
    at = dict(zip(POINTS, (0, first_accurate(record), last), strict=True))
    return [p for p in POINTS if at[p] == step and record.load_arrays(array_name(p)) is None]


def save_spectra(
    problem: Problem, run: SeedRun[Config], record: Record, point: str, step: int
) -> None:
    """Save the numbers that the claims are made of, and the spectra that the report draws."""
    found = tops(problem, run.study.pairs)
    residual = top_eigenpairs(Residual(problem), MOST, which="magnitude", tol=TOL)
    known = found.converged and bool(residual.converged.all())
    arrays = {
        "hessian_values": found.hessian.values,
        "gauss_newton_values": found.gauss_newton.values,
    }
    if run.seed == FIRST_SEED:  # to look at
        arrays |= densities(problem, run)
    drawing = Spectra(
        matrices={"hessian": "Hessian", "gauss_newton": "Gauss-Newton matrix"},
        column=f"{run.place['labels']} labels",
        row=f"{point}, step {step}",
        marked=MOST,
        marked_as="C - 1",
    )
    other = overlap(found.space, residual.vectors) if known else math.nan
    numbers = {**found.numbers(), "overlap_with_residual": other}
    save_drawing(record, array_name(point), drawing, arrays, **numbers)


def densities(problem: Problem, run: SeedRun[Config]) -> dict[str, Tensor]:
    """The spectral densities of both matrices as arrays."""
    probes, steps = run.study.probes, run.study.lanczos_steps
    arrays: dict[str, Tensor] = {}
    for name, matrix in (("hessian", Hessian(problem)), ("gauss_newton", GaussNewton(problem))):
        found = spectral_density(matrix, probes=probes, steps=steps, seed=run.seed)
        arrays |= {f"{name}_{part}": getattr(found, part) for part in ("grid", "density", "stderr")}
        one = 1 / (found.size * found.width * math.sqrt(2 * math.pi))  # the height of an eigenvalue
        arrays[f"{name}_one_eigenvalue"] = torch.tensor(one)
    return arrays
