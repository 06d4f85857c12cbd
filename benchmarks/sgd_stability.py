"""``python -m benchmarks.sgd_stability``: exact thresholds of SGD, and how long they take.

Of a tanh network on random data, for six batch sizes. Where the matrix on second moments can be
held, the same thresholds from its eigenvalues are beside them. Printed is a table for the
documentation.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
import tyro
from torch import Tensor, nn

from lossgeom import Problem
from lossgeom.stability.sgd import (
    ExampleCurvatures,
    example_curvatures,
    mean_square_thresholds,
    noise_share,
)

HELD = 40  # of the rank: larger matrices on second moments are not decomposed here
T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """Sizes of the networks."""

    batch_sizes: tuple[int, ...] = (1, 2, 5, 10, 20, 25)
    """At most the number of examples."""
    seed: int = 0
    """Of all numbers."""


CASES = [(30, 64, 16, 1), (100, 64, 16, 1), (200, 64, 30, 1), (500, 64, 76, 1), (200, 64, 30, 3)]


def problem(n: int, inputs: int, width: int, outputs: int, seed: int) -> Problem:
    """A network at an interpolating minimum: its targets are its outputs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, outputs)
        model = nn.Sequential(*layers).double()
        x = torch.randn(n, inputs, dtype=torch.float64)
    return Problem(model, "squared_error", [(x, model(x).detach())], mode="eval")


def timed(compute: Callable[[], T]) -> tuple[T, float]:
    """What is computed, and the seconds that it took."""
    start = time.perf_counter()
    found = compute()
    return found, time.perf_counter() - start


def by_matrix(curvatures: ExampleCurvatures, batch_size: int) -> float:
    """The threshold from the matrix of all entries of second moments."""
    p, h = noise_share(curvatures.n, batch_size), curvatures.values
    one, H = torch.eye(len(h), dtype=h.dtype), torch.diag(h)
    C = (torch.kron(H, one) + torch.kron(one, H)).diagonal() / 2
    D = (1 - p) * torch.kron(H, H)
    for Hi in curvatures.matrices:
        D += p / curvatures.n * torch.kron(Hi, Hi)
    scaled: Tensor = D / (C[:, None] * C).sqrt()
    return 2 / float(torch.linalg.eigvalsh(scaled)[-1])


def row(options: Options, n: int, inputs: int, width: int, outputs: int) -> str:
    """A line of the table."""
    at, sizes = problem(n, inputs, width, outputs, options.seed), options.batch_sizes
    curvatures, first = timed(lambda: example_curvatures(at))
    found, second = timed(lambda: mean_square_thresholds(curvatures, sizes))
    cells = [f"{n:,}", f"{at.theta.numel():,}", f"{outputs}", f"{curvatures.rank:,}"]
    cells += [f"{first:.2f}", f"{second:.2f}"]
    if curvatures.rank > HELD:
        return line([*cells, "", ""])
    expected, third = timed(lambda: [by_matrix(curvatures, B) for B in sizes])
    error = max(abs(a / b - 1) for a, b in zip(found, expected, strict=True))
    return line([*cells, f"{third / second:.0f} times", f"{error:.0e}"])


def line(cells: list[str]) -> str:
    """Write a row of the table."""
    return "| " + " | ".join(cells) + " |"


def table(options: Options) -> str:
    """All rows."""
    head = ["examples", "parameters", "outputs", "rank", "curvatures, s", "six thresholds, s"]
    head += ["by the matrix", "largest difference"]
    rows = [row(options, *case) for case in CASES]
    return "\n".join([line(head), line(["---"] * len(head)), *rows])


def main(arguments: list[str] | None = None) -> int:
    """Print the table."""
    options = tyro.cli(Options, args=arguments, prog="python -m benchmarks.sgd_stability")
    sys.stdout.write(table(options) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
