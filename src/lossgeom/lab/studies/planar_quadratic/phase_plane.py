"""What the report draws of the phase plane."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lossgeom.quadratic import Planar, edge_limit
from lossgeom.recording.drawings import save_drawing
from lossgeom.recording.for_report import PhasePlane
from lossgeom.recording.record import Record

Box = tuple[tuple[float, float], tuple[float, float]]
WHOLE: Box = ((-0.85, 0.75), (0.0, 3.2))  # of z and T(0)
NEAR: Box = ((-0.3, 0.3), (1.85, 2.3))
POINTS = 120  # of a grid to each side; even, so that z = 0, where all is still, is not among them
STEPS = 800


def save_phase_plane(
    record: Record, planar: Planar, starts: Sequence[tuple[float, float]]
) -> float:
    """Save gradient flow in the whole plane, two steps of descent at the edge, and paths in both.

    Returns:
        Where the first path ends.
    """
    z, T = torch.tensor(starts, dtype=torch.float64).T
    paths = torch.stack(planar.descend(z, T, STEPS), 2)
    save = {f"path_{i}": paths[:, i] for i in range(len(starts))}

    def two_steps(z: Tensor, T: Tensor) -> tuple[Tensor, Tensor]:
        later_z, later_T = planar.two_steps(z, T)
        return later_z - z, later_T - T

    limit, at = edge_limit(planar.eps, planar.E), f"eps = {planar.eps:g}, E = {planar.E:g}"
    flow = PhasePlane(
        title=f"Gradient flow, {at}",
        x_label="z = learning rate times residual",
        y_label="T(0) = learning rate times eigenvalue of J Jᵀ",
        edge=2.0,
        edge_label="edge of stability, T(0) = 2",
        limit=limit,
        limit_label=f"predicted limit, T(0) = {limit:g}",
        rest_label="z = 0, all stands still",
        still_x="z stands still",
        still_y="T(0) stands still",
    )
    descent = replace(flow, title=f"Two steps of gradient descent, {at}")
    save_drawing(record, "plane", flow, {**_field(planar, WHOLE, planar.velocity), **save})
    save_drawing(record, "plane-two-steps", descent, {**_field(planar, NEAR, two_steps), **save})
    return paths[-1, 0, 1].item()


def _field(
    planar: Planar, box: Box, motion: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
) -> dict[str, Tensor]:
    """Evaluate a motion on a grid (T, z), and say for which of its points there are models."""
    x, y = (torch.linspace(*ends, POINTS, dtype=torch.float64) for ends in box)
    T, z = torch.meshgrid(y, x, indexing="ij")
    dz, dT = motion(z, T)
    c = 2 * z + planar.E
    exists = (c <= T) & (-planar.eps * c <= T)
    return {"x": x, "y": y, "dx": dz, "dy": dT, "still_x": dz / z, "still_y": dT / z,
            "exists": exists}  # fmt: skip
