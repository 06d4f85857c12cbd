"""``python -m benchmarks.lipschitz``: how tight Lipschitz bounds are, as tables of the docs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import torch
import tyro
from torch import Tensor, nn

import lossgeom as lg
from benchmarks.table import markdown, publish

BEGIN, END = "<!-- tightness: begin -->", "<!-- tightness: end -->"
BLOCK_BEGIN, BLOCK_END = "<!-- attention: begin -->", "<!-- attention: end -->"
RADII = (1e-3, 1e-2, 0.1, 1.0)
BLOCK_RADII = (1e-4, 1e-3, 1e-2, 3e-2, 0.1)
IMAGES, MEASURED, FEW, STEPS = 500, 20, 6, 300
HEAD = (
    "activation", "width", "hidden layers", "r", "at the data", "local", "lower", "global",
    "product of norms", "variation, lower and upper", "tightness",
)  # fmt: skip
BLOCK_HEAD = (
    "steps of training", "r", "at the data", "local", "local / found", "variation / found",
)  # fmt: skip
Model = TypeVar("Model", bound=nn.Module)


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
    return fitted(nn.Sequential(*layers[:-1]), x, y, STEPS)


def fitted(model: Model, x: Tensor, y: Tensor, steps: int) -> Model:
    """Train a model by full-batch steps of Adam."""
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(steps):
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


class Block(nn.Module):
    """A transformer's block on the rows of an image, normalised first, with two heads."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(8, width), nn.Linear(width, 10)
        self.positions = nn.Parameter(0.1 * torch.randn(8, width))
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        hidden = nn.Linear(width, 2 * width)
        self.mlp = nn.Sequential(hidden, nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        x = self.embed(torch.unflatten(x, 1, (8, 8))) + self.positions
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        logits: Tensor = self.head((x + self.mlp(self.norm2(x))).mean(1))
        return logits


def block_rows(x: Tensor, y: Tensor) -> list[list[str]]:
    """How tight the bounds of a block are, before and after it is trained."""
    rows = []
    for steps in (0, STEPS):
        torch.manual_seed(0)
        model = fitted(Block(), x, y, steps)
        problem = lg.Problem(model, "cross_entropy", [(x[:FEW], y[:FEW])])
        at_data = lg.jacobian_norms(problem).values.mean()
        for radius in BLOCK_RADII:
            local = lg.lipschitz_local(problem, radius)
            lower = lg.lipschitz_lower(problem, radius=radius, restarts=1)
            bracket = lg.local_variation(problem, radius, restarts=1)
            rows.append(
                [
                    str(steps),
                    f"{radius:g}",
                    f"{at_data:.1f}",
                    f"{local.mean():.3g}",
                    f"{float(local[lower.example]) / lower.value:.3g}",
                    f"{(1 / bracket.tightness).mean():.2g}",
                ]
            )
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Write the table; return the exit status."""
    options = tyro.cli(Options, args=arguments, prog="python -m benchmarks.lipschitz")
    x, y = digits()

    def table() -> str:
        return markdown(HEAD, [row(case, x, y) for case in cases()])

    def block() -> str:
        return markdown(BLOCK_HEAD, block_rows(x, y))

    return publish(table, options.into, BEGIN, END) or publish(
        block, options.into, BLOCK_BEGIN, BLOCK_END
    )


if __name__ == "__main__":
    sys.exit(main())
