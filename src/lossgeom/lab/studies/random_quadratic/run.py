"""Descent of random models, and how their curvature moves at first."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from lossgeom.lab.studies._stages import Stage, run_stages
from lossgeom.lab.studies._study import SeedRun
from lossgeom.lab.studies.random_quadratic.config import RISE, SIZES, Config
from lossgeom.quadratic import (
    Dense,
    Descent,
    PhaseDiagram,
    QuadraticModel,
    RandomModels,
    Trajectory,
    descend,
    initial_motion,
    phase_diagram,
    predicted_acceleration,
    random_models,
)
from lossgeom.quadratic.phases import BAND
from lossgeom.recording.drawings import save_drawing
from lossgeom.recording.for_report import Curves, ForReport, HeatMap
from lossgeom.recording.record import Record

TOL = 1e-8  # of the residuals' norm, at which a run has converged
EVERY = 10  # steps at which curvature is looked at
TOGETHER = 50  # models in memory at once
DRAWN = 6  # runs
DRAWN_STEPS = 150
FINITE_SIZE = 1.75  # of (1/D + 1/P), which the acceleration exceeds its limit by


def run(run: SeedRun[Config], record: Record) -> None:
    """Draw models, and descend."""
    curves = tuple(f"trajectories-{size}" for size in SIZES)
    record.describe(ForReport(curves=curves, heat_maps=("diagram",)))
    run_stages(STAGES, run, record)


def models_at(run: SeedRun[Config], a: float, runs: int) -> RandomModels:
    """Models of the seed at the curvature where the phases are compared."""
    study = run.study
    return random_models(
        runs, study.outputs, study.parameters,
        a=a, initial_curvature=study.curvature, seed=run.seed,
    )  # fmt: skip


def chunks(models: RandomModels) -> Iterator[QuadraticModel]:
    """The models, a few at a time."""
    for first in range(0, models.runs, TOGETHER):
        yield models.rows(slice(first, first + TOGETHER))


def outcome(found: Trajectory) -> dict[str, float]:
    """How runs end.

    Returns:
        Shares of all runs that converged in the band at the edge (``"value"``), diverged, passed
        the edge and converged, and ended with RISE times the initial curvature or more
        (``"risen"``); the median final curvature of those that passed (``"held"``); the median over
        runs of the final by the initial curvature (``"sharpening"``). NaN for a median of none.
    """
    final = found.ntk[-1]
    passed = found.converged & (found.ntk.nan_to_num(nan=0.0).amax(0) > 2)
    band = found.converged & (final >= BAND[0]) & (final <= BAND[1])
    risen = final >= RISE * found.ntk[0]
    shares = {"value": band, "diverged": found.diverged, "passed": passed, "risen": risen}
    medians = {"held": final[passed], "sharpening": final / found.ntk[0]}
    return {
        **{name: of.double().mean().item() for name, of in shares.items()},
        **{name: median(values) for name, values in medians.items()},
    }


def median(values: Tensor) -> float:
    """The median of those that are not NaN; NaN if there is none."""
    return values.nanquantile(0.5).item() if len(values) else float("nan")


# The stages


def at_size(size: str, run: SeedRun[Config], _: Record) -> dict[str, float]:
    """How runs end with residuals of a size."""
    study = run.study
    models = models_at(run, getattr(study, size), study.runs_at_points)
    return outcome(descend(models, Descent(study.steps, every=EVERY, tol=TOL)))


def linear(run: SeedRun[Config], _: Record) -> dict[str, float]:
    """How they end with the residuals and Jacobians of the edge, and Q = 0."""
    study = run.study
    nothing = torch.zeros(study.outputs, study.parameters, study.parameters, dtype=torch.float64)
    parts = chunks(models_at(run, study.edge_a, study.runs_at_points))
    y, G = (torch.cat(each) for each in zip(*((part.y, part.G) for part in parts), strict=True))
    models = QuadraticModel(y, G, Dense(nothing))
    return outcome(descend(models, Descent(study.steps, every=EVERY, tol=TOL)))


def acceleration(run: SeedRun[Config], _: Record) -> dict[str, float]:
    """How curvature moves by gradient flow at the start.

    Returns:
        Its mean acceleration by the mean curvature, as a multiple of the prediction for large
        models (``"limit"``) and of that with its excess at this size (``"value"``), which is also
        given for residuals half as large (``"halved"``); the mean velocity by the mean curvature
        and by a, which is a rate (``"velocity"``).
    """
    study = run.study
    models = models_at(run, study.edge_a, study.models)
    found = torch.cat([motion(part) for part in chunks(models)], 1)
    curvature, velocity, second, halved = found.mean(1).tolist()
    predicted = curvature * predicted_acceleration(
        study.outputs, study.parameters, models.sigma_z[0].item()
    )
    at_this_size = predicted * (1 + FINITE_SIZE * (1 / study.outputs + 1 / study.parameters))
    return {
        "value": second / at_this_size,
        "halved": halved / at_this_size,
        "limit": second / predicted,
        "velocity": velocity / curvature / study.edge_a,
    }


def motion(models: QuadraticModel) -> Tensor:
    """Curvature, its two derivatives, and the second one for residuals half as large: (4, R)."""
    curvature = torch.linalg.eigvalsh(models.G @ models.G.mT)[:, -1]
    halved = QuadraticModel(models.y / 2, models.G, models.Q)
    return torch.stack([curvature, *initial_motion(models), initial_motion(halved)[1]])


def diagram(run: SeedRun[Config], record: Record) -> dict[str, float]:
    """The phase diagram, whose value is the share of curvatures with the three phases in order."""
    study = run.study
    found = phase_diagram(
        study.a, study.initial_curvature,
        outputs=study.outputs, parameters=study.parameters, runs=study.runs, steps=study.steps,
        tol=TOL, seed=run.seed,
    )  # fmt: skip
    names = ("initial", "final", "converged", "diverged", "at_edge")
    drawing = HeatMap(
        title=f"D = {study.outputs}, P = {study.parameters}",
        x_label="initial curvature λ₀",
        y_label="size of residuals, a = sigma √(2DP)",
        values="final",
        values_label="median final curvature\n(edge of stability: 2)",
        marks={
            "at_edge": f"most converged from {BAND[0]:g} to {BAND[1]:g}",
            "diverged": "most diverged",
        },
    )
    arrays = {name: getattr(found, name) for name in names}
    arrays |= {"x": found.initial_curvature, "y": found.a}
    save_drawing(record, "diagram", drawing, arrays)
    columns = range(len(study.initial_curvature))
    return {"value": sum(in_order(found, column) for column in columns) / len(columns)}


def in_order(diagram: PhaseDiagram, column: int) -> bool:
    """Whether there is a below, then an edge, then a divergence, as residuals grow."""
    phases = [diagram.phase(i, column) for i in range(len(diagram.a))]
    if not {"below", "edge", "divergence"} <= set(phases):
        return False
    return phases.index("below") < phases.index("edge") < phases.index("divergence")


def trajectories(run: SeedRun[Config], record: Record) -> dict[str, float]:
    """Some runs of each size, for the figure; the value is the highest curvature seen."""
    highest = 0.0
    for size in SIZES:
        a = getattr(run.study, size)
        found = descend(models_at(run, a, DRAWN), Descent(DRAWN_STEPS, every=1))
        highest = max(highest, found.ntk.nan_to_num(nan=0.0).max().item())
        drawing = Curves(
            title=f"a = {a:g}",
            x_label="step",
            y_label="largest eigenvalue of J Jᵀ",
            line=2.0,
            line_label="edge of stability, 2",
        )
        save_drawing(record, f"trajectories-{size}", drawing, {"x": found.steps, "y": found.ntk})
    return {"value": highest}


STAGES: dict[str, Stage] = {
    **{size.removesuffix("_a"): partial(at_size, size) for size in SIZES},
    "linear": linear,
    "acceleration": acceleration,
    "trajectories": trajectories,
    "diagram": diagram,
}
