"""Descent in the plane: where runs end, and what they conserve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lossgeom.lab.studies._stages import Stage, run_stages
from lossgeom.lab.studies._study import SeedRun
from lossgeom.lab.studies.planar_quadratic.config import Config
from lossgeom.lab.studies.planar_quadratic.phase_plane import save_phase_plane
from lossgeom.quadratic import (
    Basins,
    Descent,
    Planar,
    basins,
    descend,
    edge_limit,
    invariant,
    residuals,
)
from lossgeom.recording.drawings import save_drawing
from lossgeom.recording.for_report import ForReport, Prediction
from lossgeom.recording.record import Record

# Nominal starts, as (z, T(0)).
OVERSHOT = (0.05, 2.2)
OVERSHOT_LESS = (0.02, 2.15)
SHARPENING = (-0.4, 1.6)
BELOW = ((-0.3, 1.0), (0.01, 1.8))

DISTANCE = "(2 - limit of T(0)) / eps"  # on the figures' axes

STEPS, EVERY = 10_000, 10  # to look at what is conserved
STEPS_TIMES_KAPPA = 400  # runs take about 104 / kappa to settle, where kappa = eps (2 - E)


def run(run: SeedRun[Config], record: Record) -> None:
    """Follow all starts to where they end."""
    planes = ("plane", "plane-two-steps")
    record.describe(ForReport(predictions=("limits", "energies"), phase_planes=planes))
    run_stages(STAGES, run, record)


def starts(run: SeedRun[Config], *nominal: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Z and T(0) of a seed's starts around nominal ones."""
    return draw_starts(nominal, run.study.starts, run.study.spread, run.seed)


def draw_starts(
    nominal: Sequence[tuple[float, float]], number: int, spread: float, seed: int
) -> tuple[Tensor, Tensor]:
    """Z and T(0) of starts around each nominal one, at most ``spread`` away relative to (0, 2)."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.tensor(nominal, dtype=torch.float64)
    factors = 1 + spread * (2 * torch.rand(2, len(centre), number, generator=generator) - 1)
    z, above = centre[:, :1] * factors[0], (centre[:, 1:] - 2) * factors[1]
    return z.flatten(), (2 + above).flatten()


def settle(planar: Planar, z: Tensor, T: Tensor) -> Basins:
    """Follow runs for as long as they take to settle."""
    kappa = planar.eps * (2 - planar.E)
    return basins(planar, z, T, steps=round(STEPS_TIMES_KAPPA / kappa))


def distances(found: Basins) -> Tensor:
    """How far below the edge runs end, 2 - T(0); infinite for those that have not settled."""
    return torch.where(found.settled, 2 - found.limit, torch.inf)


def off(distance: Tensor, planar: Planar) -> float:
    """The largest difference from the predicted distance, relative to it."""
    predicted = 2 - edge_limit(planar.eps, planar.E)
    return (distance / predicted - 1).abs().max().item()


def exponent(eps: Sequence[float], values: Sequence[float]) -> float:
    """The power of eps that fits best; NaN if a value is not finite."""
    x, y = torch.tensor(eps).double().log(), torch.tensor(values).double().log()
    x, y = x - x.mean(), y - y.mean()
    return ((x @ y) / (x @ x)).item()


def save_prediction(
    record: Record,
    name: str,
    drawing: Prediction,
    found: Mapping[float, Tensor],
    line: Mapping[float, float],
) -> None:
    """Save numbers, and a line that predicts them, for the report to draw."""
    arrays = {
        "x": torch.tensor(list(found), dtype=torch.float64),
        "y": torch.stack(list(found.values())),
        "line_x": torch.tensor(list(line), dtype=torch.float64),
        "line_y": torch.tensor(list(line.values()), dtype=torch.float64),
    }
    save_drawing(record, name, drawing, arrays)


# The stages


def limits(run: SeedRun[Config], record: Record) -> dict[str, float]:
    """Runs that overshot the edge, E = 0, over eps."""
    study, (z, T) = run.study, starts(run, OVERSHOT)
    found = {eps: distances(settle(Planar(eps), z, T)) for eps in study.eps}
    save_prediction(
        record,
        "limits",
        Prediction("E = 0, over eps", "eps", DISTANCE, "predicted: 1/2", log_x=True),
        {eps: distance / eps for eps, distance in found.items()},
        {study.eps[0]: 0.5, study.eps[-1]: 0.5},
    )
    small = [eps for eps in study.eps if eps <= study.small_eps]
    means = {eps: found[eps].mean().item() for eps in study.eps if eps <= study.fit_eps}
    return {
        "value": max(off(found[eps], Planar(eps)) for eps in small),
        "order": exponent(list(means), list(means.values())),
        "remainder": exponent(list(means), [abs(x - eps / 2) for eps, x in means.items()]),
    }


def energies(run: SeedRun[Config], record: Record) -> dict[str, float]:
    """Runs that overshot the edge, over E."""
    study, (z, T) = run.study, starts(run, OVERSHOT_LESS)
    eps = study.small_eps
    found = {E: distances(settle(Planar(eps, E), z, T)) for E in study.E}
    over_E = f"eps = {eps:g}, over E"
    save_prediction(
        record,
        "energies",
        Prediction(over_E, "invariant E", DISTANCE, "predicted: (2 - E)/4", log_x=False),
        {E: distance / eps for E, distance in found.items()},
        {E: (2 - E) / 4 for E in (min(found), max(found))},
    )
    return {
        "value": max(off(distance, Planar(eps, E)) for E, distance in found.items()),
        "without_E": max(off(distance, Planar(eps)) for distance in found.values()),
    }


def sharpening(run: SeedRun[Config], _: Record) -> dict[str, float]:
    """Runs that start below the edge and that gradient flow takes beyond it."""
    planar, (z, T) = Planar(run.study.small_eps), starts(run, SHARPENING)
    found, flow = settle(planar, z, T), planar.flow_limit(z, T)
    sharpened = (T < 2) & (found.highest > 2)
    distance = torch.where(sharpened, distances(found), torch.inf)
    return {"value": off(distance, planar), "flow": off(2 - flow, planar)}


def below(run: SeedRun[Config], _: Record) -> dict[str, float]:
    """Runs that gradient flow does not take to the edge."""
    planar, (z, T) = Planar(run.study.small_eps), starts(run, *BELOW)
    found, flow = settle(planar, z, T), planar.flow_limit(z, T)
    highest = torch.where(flow < 2, found.highest, torch.nan)
    return {
        "value": (highest.max() - 2).item(),
        "end": (found.limit.max() - 2).item(),
        "off": off(distances(found), planar),
    }


def conservation(run: SeedRun[Config], _: Record) -> dict[str, float]:
    """What the model with its two parameters conserves, for E = 0 and the least E."""
    study, (z, T) = run.study, starts(run, OVERSHOT_LESS)
    every_E = sorted({min(study.E), 0.0})
    found = [conserved(Planar(study.small_eps, E), z, T) for E in every_E]
    return {name: max(numbers[name] for numbers in found) for name in found[0]}


def conserved(planar: Planar, z: Tensor, T: Tensor) -> dict[str, float]:
    """How far what should stay has moved, by descent of the model with its two parameters.

    Returns:
        The largest changes of E (``"value"``) and of T(-1) (``"without_z"``), and the largest
        difference between T(0) and the map of the plane (``"plane"``).
    """
    observe = {"z": residuals, "J": lambda point: point.J}
    found = descend(planar.model(z, T), Descent(STEPS, every=EVERY, observe=observe))
    z_path, J_path = found.recorded["z"][..., 0], found.recorded["J"][:, :, 0]
    omega = torch.tensor([1, -planar.eps], dtype=torch.float64)
    E = invariant(omega, z_path.flatten(), J_path.flatten(0, 1)).view_as(z_path)
    T_path = planar.descend(z, T, STEPS)[1][::EVERY]
    without_z = E + 2 * z_path
    return {
        "value": (E - E[0]).abs().max().item(),
        "plane": (J_path.square().sum(2) - T_path).abs().max().item(),
        "without_z": (without_z - without_z[0]).abs().max().item(),
    }


def plane(run: SeedRun[Config], record: Record) -> dict[str, float]:
    """The phase plane, for the figure; the value is where the run that sharpens ends."""
    paths = [SHARPENING, OVERSHOT, BELOW[0]]
    return {"value": save_phase_plane(record, Planar(run.study.plane_eps), paths)}


STAGES: dict[str, Stage] = {
    "limits": limits,
    "energies": energies,
    "sharpening": sharpening,
    "below": below,
    "conservation": conservation,
    "plane": plane,
}
