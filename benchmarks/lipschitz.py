"""``python -m benchmarks.lipschitz``: how tight Lipschitz bounds are, as a table of the docs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
import tyro
from torch import Tensor, nn

import lossgeom as lg
from benchmarks.table import markdown, publish

BEGIN, END = "<!-- tightness: begin -->", "<!-- tightness: end -->"
RADII = (1e-3, 1e-2, 0.1, 1.0)
IMAGES, MEASURED, STEPS = 500, 20, 300
HEAD = (
    "activation", "width", "hidden layers", "r", "at the data", "local", "lower", "global",
    "product of norms", "variation, lower and upper", "tightness",
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """Where the table goes."""

    into: Path | None = Path("docs/explanation/lipschitz-bounds.md")
    """A page with the two lines that it goes between; None prints it."""


@dataclass(frozen=True)
class Case:
    """A perceptron and a radius."""

    activation: Callable[[], nn.Module]
    width: int
    depth: int
    radius: float


def cases() -> list[Case]:
    """Perceptrons around width 48 and depth 3, and radii around 0.1."""
    return [
        Case(activation, width, depth, radius)
        for activation in (nn.ReLU, nn.Tanh)
        for width, depth, radius in (
            *((48, 3, radius) for radius in RADII),
            *((width, 3, 0.1) for width in (16, 128)),
            *((48, depth, 0.1) for depth in (1, 5)),
        )
    ]


def digits() -> tuple[Tensor, Tensor]:
    """Images over 16, centred, and their labels."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images[:IMAGES], dtype=torch.float32) / 16
    return x - x.mean(0), torch.tensor(labels[:IMAGES])


def trained(case: Case, x: Tensor, y: Tensor) -> nn.Sequential:
    """Train a perceptron by full-batch steps of Adam, from a fixed seed."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for m, n in pairwise([x.shape[1], *[case.width] * case.depth, 10]):
        layers += [nn.Linear(m, n), case.activation()]
    model = nn.Sequential(*layers[:-1])
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss: Tensor = nn.functional.cross_entropy(model(x), y)
        torch.autograd.backward(loss)
        optimizer.step()
    return model


def row(case: Case, x: Tensor, y: Tensor) -> list[str]:
    """The numbers of one case."""
    model = trained(case, x, y)
    problem = lg.Problem(model, "cross_entropy", [(x[:MEASURED], y[:MEASURED])])
    lower, bracket = lg.lipschitz_lower(problem), lg.local_variation(problem, case.radius)
    at_data = lg.jacobian_norms(problem).values
    weights = [layer.weight for layer in model if isinstance(layer, nn.Linear)]
    product = torch.stack([torch.linalg.matrix_norm(W.double(), ord=2) for W in weights]).prod()
    return [
        case.activation().__class__.__name__,
        str(case.width),
        str(case.depth),
        f"{case.radius:g}",
        f"{at_data.mean():.1f}",
        f"{lg.lipschitz_local(problem, case.radius).mean():.1f}",
        f"{lower.value:.0f}",
        f"{lg.lipschitz_global(problem):.0f}",
        f"{product:.0f}",
        ", ".join(f"{float(f'{side.mean():.2g}'):g}" for side in (bracket.lower, bracket.upper)),
        f"{bracket.tightness.mean():.2f}",
    ]


def main(arguments: list[str] | None = None) -> int:
    """Write the table; return the exit status."""
    options = tyro.cli(Options, args=arguments, prog="python -m benchmarks.lipschitz")
    x, y = digits()

    def table() -> str:
        return markdown(HEAD, [row(case, x, y) for case in cases()])

    return publish(table, options.into, BEGIN, END)


if __name__ == "__main__":
    sys.exit(main())
