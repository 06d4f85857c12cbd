"""``python -m benchmarks.edge_limits``: where runs end at the edge, beside two formulas.

Runs start with a Jacobian whose largest singular value is above the edge, near an eigenvector of
the second derivative; other entries are random. Printed is a table for the documentation.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch
import tyro
from torch import Tensor

from lossgeom.quadratic import (
    Dense,
    Descent,
    QuadraticModel,
    descend,
    edge_limit_at,
    random_models,
)

NEAR = 0.3  # predicted distances above it are not looked at
OVERSHOOT = 4  # times the predicted distance that a run must have been above the edge
CELLS = [(1, 8, 0.1), (1, 8, 0.3), (2, 4, 0.1), (2, 4, 0.3), (3, 10, 0.1), (3, 10, 0.3)]


@dataclass(frozen=True)
class Options:
    """Sizes of the runs."""

    runs: int = 200
    """For each row."""
    steps: int = 8000
    """At most."""
    seed: int = 0
    """Of all numbers."""


@dataclass(frozen=True)
class Cell:
    """Distances from 2 of the runs that were well above it and converged below it."""

    measured: Tensor
    predicted: Tensor
    planar: Tensor


def starts(options: Options, D: int, P: int, size: float) -> QuadraticModel:
    """Models whose Q is 1 along one direction of parameters and outputs, plus symmetric noise."""
    generator = torch.Generator().manual_seed(options.seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(options.runs, *shape, generator=generator, dtype=torch.float64)

    noise = size * normal(D, P, P)
    Q = (noise + noise.mT) / 2
    Q[:, 0, 0, 0] += 1
    G, y = 0.1 * normal(D, P), 0.02 * normal(D)
    G[:, range(1, D), range(1, D)] += 0.7
    G[:, 0, 0], y[:, 0] = 1.48, 0.05
    return QuadraticModel(y, G, Dense(Q))


def planar_distance(J: Tensor, Q: Tensor) -> Tensor:
    """Distance from 2 by the planar formula, with extreme eigenvalues of Q along the top output."""
    U = torch.linalg.svd(J, full_matrices=False)[0]
    u = U[:, :, 0]
    Qu = (u[:, :, None, None] * Q).sum(1)
    w = (u[:, None] @ J)[:, 0]
    values = torch.linalg.eigvalsh(Qu)
    top = values.gather(1, values.abs().argmax(1, keepdim=True))[:, 0]
    eps = -torch.where(top > 0, values[:, 0], values[:, -1]) / top
    E = top * (w * torch.linalg.solve(Qu, w)).sum(1)
    distance: Tensor = eps * (2 - E) / 4
    return distance


def followed(options: Options, model: QuadraticModel) -> Cell:
    """Descend, and keep the runs that the formulas speak of."""
    found = descend(model, Descent(options.steps, every=1, tol=1e-9))
    rows = found.converged.nonzero()[:, 0]
    J, Q = found.final["J"][rows], model.Q.rows(rows)
    measured, predicted = 2 - found.ntk[-1, rows], 2 - edge_limit_at(J, Q)
    overshoot = found.ntk[:, rows].amax(0) - 2
    kept = (overshoot > OVERSHOOT * predicted) & (measured > 0) & (predicted < NEAR)
    planar = planar_distance(J, Q.Q if isinstance(Q, Dense) else J)
    return Cell(measured[kept], predicted[kept], planar[kept])


def cell(options: Options, D: int, P: int, size: float) -> Cell:
    """A row of the table."""
    return followed(options, starts(options, D, P, size))


def spread(ratio: Tensor) -> str:
    """Median, and the range of the middle four fifths."""
    if not len(ratio):
        return "no run"
    low, middle, high = ratio.quantile(torch.tensor([0.1, 0.5, 0.9], dtype=ratio.dtype)).tolist()
    return f"{middle:.3f} ({low:.2f} to {high:.2f})"


def line(name: str, found: Cell) -> str:
    """Write a row of the table."""
    cells = [name, str(len(found.measured)), spread(found.measured)]
    cells += [spread(found.measured / found.predicted), spread(found.measured / found.planar)]
    return "| " + " | ".join(cells) + " |"


def table(options: Options) -> str:
    """All rows, the last of which are random models that come to the edge by themselves."""
    lines = [
        "| model | runs | distance from 2 | by `edge_limit_at` | by the planar formula |",
        "| --- | --- | --- | --- | --- |",
    ]
    for D, P, size in CELLS:
        lines.append(line(f"D = {D}, P = {P}, noise {size}", cell(options, D, P, size)))
    for D, P in ((20, 40),):
        models = random_models(options.runs, D, P, a=0.5, initial_curvature=1.7, seed=options.seed)
        found = followed(options, models.rows(slice(options.runs)))
        lines.append(line(f"D = {D}, P = {P}, random", found))
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Print the table."""
    options = tyro.cli(Options, args=arguments, prog="python -m benchmarks.edge_limits")
    sys.stdout.write(table(options) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
