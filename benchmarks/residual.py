"""``python -m benchmarks.residual``: Lipschitz bounds of residual networks, as a table."""

from __future__ import annotations

import sys
from functools import partial
from itertools import pairwise
from time import process_time

import torch
import tyro
from torch import Tensor, nn

import lossgeom as lg
from benchmarks.lipschitz import RADII, Options, digits, fitted
from benchmarks.memory import peak_megabytes
from benchmarks.table import markdown, publish
from lossgeom.lab.models.resnet18 import BasicBlock

BEGIN, END = "<!-- residual: begin -->", "<!-- residual: end -->"
CHANNELS, STEPS, WARM = (8, 16, 32), (0, 30), 50
HEAD = (
    "steps of training", "r", "at the data", "largest found", "local", "global", "variation, upper",
    "seconds", "MB",
)  # fmt: skip


def network(steps: int, x: Tensor, y: Tensor) -> nn.Sequential:
    """Train a network of one block for each number of channels, and average over the data."""
    torch.manual_seed(0)
    first, last = CHANNELS[0], CHANNELS[-1]
    model = nn.Sequential(
        nn.Conv2d(3, first, 3, padding=1, bias=False), nn.BatchNorm2d(first), nn.ReLU(),
        *(BasicBlock(m, n, 1 + (m < n)) for m, n in pairwise((first, *CHANNELS))),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, 10),
    )  # fmt: skip
    fitted(model, x, y, steps)
    with torch.no_grad():
        for _ in range(WARM):
            model(x)
    return model.eval()


def row(steps: int, radius: float, problem: lg.Problem) -> list[str]:
    """The numbers of one image and radius."""
    local: list[float] = []
    start = process_time()
    memory = peak_megabytes(partial(_measure, problem, radius, local))
    seconds = process_time() - start
    numbers = (
        lg.jacobian_norms(problem).values.item(),
        lg.lipschitz_lower(problem, radius=radius).value,
        *local,
        lg.lipschitz_global(problem),
        lg.local_variation_upper(problem, radius).item(),
        seconds,
    )
    rounded = [f"{float(f'{number:.2g}'):g}" for number in numbers]
    return [str(steps), f"{radius:g}", *rounded, "" if memory is None else f"{memory:.0f}"]


def _measure(problem: lg.Problem, radius: float, into: list[float]) -> None:
    into.append(lg.lipschitz_local(problem, radius).item())


def table() -> str:
    """The rows of all networks and radii, for the first image."""
    x, y = digits()
    images = nn.functional.interpolate(x.view(-1, 1, 8, 8), scale_factor=2).expand(-1, 3, -1, -1)
    models = {steps: network(steps, images, y) for steps in STEPS}
    data = [(images[:1], y[:1])]
    problems = {k: lg.Problem(model, "cross_entropy", data) for k, model in models.items()}
    return markdown(HEAD, [row(k, r, problem) for k, problem in problems.items() for r in RADII])


def main(arguments: list[str] | None = None) -> int:
    """Write the table; return the exit status."""
    options = tyro.cli(Options, args=arguments, prog="python -m benchmarks.residual")
    return publish(table, options.into, BEGIN, END)


if __name__ == "__main__":
    sys.exit(main())
