"""A student of a known teacher, its true error, and all forms of the bound on it."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial

import torch
from torch import Tensor, nn

from lossgeom.bounds import generalisation_bounds, intrinsic_dimension
from lossgeom.lab.generators import ManifoldTask, digits_decoder, student, tanh_surface
from lossgeom.lab.studies._stages import append_missing
from lossgeom.lab.studies._study import SeedRun
from lossgeom.lab.studies.generalisation_bound.config import (
    DECODER,
    SURFACE,
    SURFACES,
    UNREGULARISED,
    Config,
)
from lossgeom.recording.for_report import ForReport
from lossgeom.recording.record import Record

RATES = {  # powers of delta, by the names of bounds as metrics
    "ambient": 1,
    "latent": 1,
    "local_Lipschitz": 1,
    "difference": 2,
    "local_difference": 2,
    "smooth_difference": 2,
}
FORMS = tuple(RATES)
BEST = FORMS[-1]

# Other metrics
ERROR, STDERR, FIT, DELTA = "error", "stderr", "fit", "delta"
RANGE, CONSTANT = "range", "constant"
TWO_NEAREST, LIKELIHOOD = "two_nearest", "likelihood"
LEAST_FIT = "least_fit"
OFF = "off_"  # before the metrics of a student that is off by 1 everywhere
NEW, MEASURED_AT = (
    1000,
    2000,
)  # added to seeds, for new points; points to estimate dimensions from

MAKE: dict[str, Callable[..., ManifoldTask]] = {
    **{name: partial(tanh_surface, dimension) for name, dimension in SURFACES.items()},
    DECODER: digits_decoder,
    UNREGULARISED: partial(digits_decoder, weight_decay=1e-4, teacher_decay=3e-3),
}


def run(run: SeedRun[Config], record: Record) -> None:
    """Train a student on each sample, and evaluate what the theorem promises."""
    study, name = run.study, run.place["task"]
    sizes = study.sizes(name)
    record.describe(ForReport(planned_steps=sizes))
    task = MAKE[name](seed=run.seed)
    sample, new = task.sample(sizes[-1], run.seed), task.sample(study.new_points, run.seed + NEW)
    trained = cache(partial(trained_student, run, sample))
    for N in sizes:
        if (N, STDERR) in record.measured:
            continue
        u, y = sample[0][:N], sample[2]
        model = trained(min(N, study.trained_on))
        append_missing(record, N, facts(task, sample, new[2], N, study.epsilon))
        if name == SURFACE and study.examples_of_others[-1] == N:
            off = evaluated(task, nn.Sequential(model, plus_one(y)), u, new, study.epsilon)
            append_missing(record, N, {OFF + key: value for key, value in off.items()})
        append_missing(record, N, evaluated(task, model, u, new, study.epsilon))
    record.finish()


def trained_student(run: SeedRun[Config], sample: tuple[Tensor, ...], N: int) -> nn.Module:
    """A network that fits the first N examples twice as well as all are to be fitted."""
    _, x, y = (part[:N] for part in sample)
    return student(x, y, fit=run.study.fit / 2, seed=run.seed)


def evaluated(
    task: ManifoldTask, model: nn.Module, u: Tensor, new: tuple[Tensor, ...], epsilon: float
) -> dict[str, float]:
    """The bounds, the fit that they include, and the true error, with its standard error."""
    bounds = generalisation_bounds(
        model, task.teacher, u, task.latent, generator=task.generator, epsilon=epsilon, searched=0
    )
    with torch.no_grad():
        errors = torch.linalg.vector_norm(model(new[1]) - new[2], dim=1)
        x = task.generator(u)
        fits = torch.linalg.vector_norm(model(x) - task.teacher(x), dim=1)
    return {
        **{form: bounds[form.replace("_", " ")].value for form in FORMS},
        FIT: fits.max().item(),
        LEAST_FIT: fits.min().item(),
        ERROR: errors.mean().item(),
        STDERR: errors.std().item() / math.sqrt(len(errors)),
    }


def plus_one(targets: Tensor) -> nn.Linear:
    """A layer that adds 1 to every output."""
    outputs = targets.shape[1]
    layer = nn.Linear(outputs, outputs).to(targets)
    nn.init.eye_(layer.weight)
    nn.init.ones_(layer.bias)
    return layer


def facts(
    task: ManifoldTask, sample: tuple[Tensor, ...], targets: Tensor, N: int, epsilon: float
) -> dict[str, float]:
    """What is known of the task itself."""
    centred = targets - targets.mean(0)
    found = {
        DELTA: task.latent.radius(N, epsilon),
        RANGE: (targets.amax(0) - targets.amin(0)).norm().item(),
        CONSTANT: torch.linalg.vector_norm(centred, dim=1).mean().item(),
    }
    if min(len(sample[1]), MEASURED_AT) == N:
        try:
            dimension = intrinsic_dimension(sample[1][:N])
        except ImportError:  # without the extra for it
            return found
        found[TWO_NEAREST] = dimension.two_nearest_neighbours.value
        found[LIKELIHOOD] = dimension.maximum_likelihood.value
    return found
