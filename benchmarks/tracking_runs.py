"""Runs along which the sharpness is followed, and plain ways to do so."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.cases import CASES, CLASSES, INITIAL, Case, trained
from benchmarks.plain import hessian_product, unit_vectors
from lossgeom.estimate import Estimate
from lossgeom.lab.datasets import digits
from lossgeom.metrics import Step

TOL = 1e-2
RESTING, MOST = 1e-3, 100  # relative change that ends power iteration, and its products at most


@dataclass(frozen=True)
class Run:
    """Full-batch gradient descent.

    Attributes:
        title: for the table.
        case: the model where the run starts, and its data.
        lr: the learning rate; ``None`` for half of the edge of stability where it starts.
        before: steps that are taken before those that are measured.
    """

    title: str
    case: Case
    lr: float | None = None
    before: int = 0


def runs(quick: bool, before: int) -> list[Run]:
    """Two networks below the edge of stability, and one at it."""
    return [
        Run("perceptron, below the edge", CASES["mlp"](quick)),
        Run("CNN, below the edge", cnn_case(quick)),
        Run("small perceptron, at the edge", edge_case(quick), lr=0.25, before=before),
    ]


def below(case: Case) -> Run:
    """A run of a model of the benchmarks."""
    return Run(f"{case.title}, below the edge", case)


def all_digits(quick: bool) -> tuple[Tensor, Tensor]:
    """All digits but one, or some."""
    data = digits(examples=1796)
    x, y = (torch.cat(pair)[: 60 if quick else 1796] for pair in zip(data.train, data.test))  # noqa: B905
    return x, y


def cnn_case(quick: bool) -> Case:
    """Two convolutions with ReLU and max-pooling on digits."""
    x, y = all_digits(quick)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(INITIAL)
        model = nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 24, 3, padding=1), nn.ReLU(),
            nn.MaxPool2d(2), nn.Flatten(), nn.Linear(384, CLASSES),
        ).eval()  # fmt: skip
    case = Case("cnn", "CNN", model, [(x.view(-1, 1, 8, 8), y)])
    return trained(case, steps=3 if quick else 150)  # until its sharpness has risen


def edge_case(quick: bool) -> Case:
    """A perceptron with squared error, which comes to the edge at once."""
    x, y = all_digits(quick)
    x, y = (16 * x[:500] - 8) / 8, torch.eye(CLASSES)[y[:500]]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(64, 48), nn.Tanh(), nn.Linear(48, 48), nn.Tanh(), nn.Linear(48, CLASSES)
        ).eval()
    return SquaredError("edge", "MLP", model, [(x, y)], loss="squared_error")


class HalfSquares(nn.Module):
    """One half of the squared length of the error, averaged over examples."""

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Compute it."""
        return (outputs - targets).square().sum() / (2 * len(outputs))


@dataclass(frozen=True, eq=False)
class SquaredError(Case):
    """A case whose loss is the squared error."""

    criterion = HalfSquares()  # type: ignore[assignment]


def power_iteration(case: Case, memory: dict[str, Tensor], step: Step) -> Estimate:
    """Plain power iteration by two backward passes, until a value changes by less than 1e-3."""
    copied = case.copy()
    with torch.no_grad():
        torch.nn.utils.vector_to_parameters(step.before.theta, copied.model.parameters())
    v, value, spent, before = memory.get("v", unit_vectors(case, 1)[0]), 0.0, 0, math.inf
    while spent < MOST and abs(value - before) >= RESTING * abs(value):
        image = hessian_product(copied, v)
        before, value, spent = value, float(v @ image), spent + 1
        v = image / image.norm()
    memory["v"] = v
    return Estimate(value, matvecs=spent)


def eigsh(case: Case, step: Step) -> Estimate:
    """SciPy's Lanczos iteration on products by two backward passes, as papers write it."""
    from scipy.sparse.linalg import LinearOperator
    from scipy.sparse.linalg import eigsh as solve

    copied, spent = case.copy(), 0
    with torch.no_grad():
        torch.nn.utils.vector_to_parameters(step.before.theta, copied.model.parameters())

    def product(v: Any) -> Any:
        nonlocal spent
        spent += 1
        return hessian_product(copied, torch.as_tensor(v, dtype=case.dtype).reshape(-1)).numpy()

    A = LinearOperator((case.P,) * 2, matvec=product, dtype="float32")
    start = unit_vectors(case, 1)[0].numpy()
    (value,) = solve(A, 1, which="LA", tol=TOL, v0=start, return_eigenvectors=False)
    return Estimate(float(value), matvecs=spent)
