"""What is measured of every example, beside a plain loop over examples one at a time."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lossgeom as lg

pytestmark = pytest.mark.usefixtures("unchecked")


def mlp(*widths: int) -> nn.Sequential:
    first, second, third = widths
    return nn.Sequential(nn.Linear(first, second), nn.Tanh(), nn.Linear(second, third))


class Squeezed(nn.Module):
    """Puts out no dimension of examples for one example, and none of outputs for one output."""

    def __init__(self, outputs: int):
        super().__init__()
        self.body = mlp(4, 5, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).squeeze()


class Operator(nn.Module):
    """A function on a grid that all examples share, as in DeepONets."""

    def __init__(self):
        super().__init__()
        self.branch, self.trunk = mlp(4, 5, 3), mlp(1, 5, 3)

    def forward(self, u: Tensor, grid: Tensor) -> Tensor:
        return self.branch(u) @ self.trunk(grid).T


class GridFirst(Operator):
    def forward(self, grid: Tensor, u: Tensor) -> Tensor:
        return super().forward(u, grid)


class Masked(nn.Module):
    """Attention with a mask (T, T) that all examples share."""

    def __init__(self):
        super().__init__()
        self.inside, self.out = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        h = self.inside(x)
        scores = (h @ h.transpose(1, 2)).masked_fill(mask, -torch.inf)
        return self.out((scores.softmax(-1) @ h).mean(1))


class Recurrent(nn.Module):
    """With sequences first inside, and examples first outside."""

    def __init__(self):
        super().__init__()
        self.body, self.out = nn.LSTM(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.body(x.transpose(0, 1))[0][-1])


class Says(nn.Module):
    """In float32, whatever comes in."""

    def __init__(self):
        super().__init__()
        self.body = mlp(4, 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x.float() * torch.ones(4))


@dataclass(frozen=True)
class Situation:
    """A model, and what it is called with, one of which holds the examples."""

    model: nn.Module
    inputs: tuple[Tensor, ...]
    wrt: int = 0

    @property
    def examples(self) -> Tensor:
        return self.inputs[self.wrt]

    @property
    def parameters(self) -> dict[str, Tensor]:
        return {name: p.detach() for name, p in self.model.named_parameters()}

    def problem(self, examples: slice = slice(None)) -> lg.Problem:
        found = torch.stack([self.alone(self.parameters, x) for x in self.examples[examples]])
        shape = self.called(torch.cat([self.examples, self.examples])).shape[1:]
        targets = found.reshape(len(found), *shape) + 1
        inputs = self.with_examples(self.examples[examples])
        batch = (inputs if len(inputs) > 1 else inputs[0], targets)
        return lg.Problem(self.model, nn.MSELoss(reduction="sum"), [batch], check=False)

    def with_examples(self, x: Tensor) -> tuple[Tensor, ...]:
        return (*self.inputs[: self.wrt], x, *self.inputs[self.wrt + 1 :])

    def called(self, x: Tensor) -> Tensor:
        return self.model(*self.with_examples(x))

    def alone(self, parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        """The outputs of one example, beside which it is there once more, for squeeze()."""
        inputs = self.with_examples(torch.stack([x, x]))
        return torch.func.functional_call(self.model, parameters, inputs)[0].flatten()

    def input_jacobians(self) -> list[Tensor]:
        found = [
            torch.func.jacrev(lambda z: self.alone(self.parameters, z))(x) for x in self.examples
        ]
        return [J.flatten(1) for J in found]

    def parameter_jacobians(self) -> list[Tensor]:
        found = [
            torch.func.jacrev(lambda p, x=x: self.alone(p, x))(self.parameters)
            for x in self.examples
        ]
        return [torch.cat([j.flatten(1) for j in J.values()], 1) for J in found]


def situation(kind: str, B: int, seed: int) -> Situation:
    torch.manual_seed(seed)
    x, grid = torch.randn(B, 4), torch.linspace(0, 1, 4)[:, None]
    sequences, mask = torch.randn(B, 3, 4), torch.ones(3, 3).triu(1).bool()
    made = {
        "plain": lambda: Situation(mlp(4, 5, 3), (x,)),
        "squeezed": lambda: Situation(Squeezed(3), (x,)),
        "squeezed to one number": lambda: Situation(Squeezed(1), (x,)),
        "grid": lambda: Situation(Operator(), (x, grid)),
        "grid first": lambda: Situation(GridFirst(), (grid, x), 1),
        "mask": lambda: Situation(Masked(), (sequences, mask)),
        "recurrent": lambda: Situation(Recurrent(), (sequences,)),
        "float32": lambda: Situation(Says(), (x,)),
    }
    return made[kind]()


KINDS = (
    "plain", "squeezed", "squeezed to one number", "grid", "grid first", "mask", "recurrent",
    "float32",
)  # fmt: skip
SIZES = {"mask": (1, 3, 4), "recurrent": (1, 3, 4)}  # with T = 3; the grid has 4 points
SITUATIONS = [(kind, B) for kind in KINDS for B in SIZES.get(kind, (1, 4, 6))]


def close(found: Any, expected: Any) -> None:
    torch.testing.assert_close(
        torch.as_tensor(found).double(), torch.as_tensor(expected).double(), rtol=1e-4, atol=1e-6
    )


def spectral(jacobians: list[Tensor]) -> Tensor:
    return torch.stack([torch.linalg.matrix_norm(J.double(), 2) for J in jacobians])


def frobenius(jacobians: list[Tensor]) -> Tensor:
    return torch.stack([J.double().norm() for J in jacobians])


@pytest.fixture(params=SITUATIONS, ids=lambda pair: f"{pair[0]}-{pair[1]}")
def made(request) -> Situation:
    kind, B = request.param
    return situation(kind, B, seed=SITUATIONS.index(request.param))


def test_norms_of_jacobians_in_the_input(made):
    problem, J = made.problem(), made.input_jacobians()
    for method in ("exact", "lanczos"):
        close(lg.jacobian_norms(problem, wrt=made.wrt, method=method).values, spectral(J))
    close(lg.jacobian_norms(problem, wrt=made.wrt, norm="frobenius").values, frobenius(J))
    largest = lg.largest_jacobian_norm(problem, wrt=made.wrt)
    close(largest.value, spectral(J).max())
    assert largest.examples == len(J)


def test_norms_of_jacobians_in_the_parameters(made):
    problem, J = made.problem(), made.parameter_jacobians()
    close(lg.parameter_jacobian_norms(problem).values, spectral(J))
    close(lg.parameter_jacobian_norms(problem, norm="frobenius").values, frobenius(J))
    found = lg.sobolev_seminorms(problem, "parameters", [1, 2])
    rows = torch.cat(J).double()
    for k in (1, 2):
        close(found.elementwise[k], (rows.abs() ** (2 * k)).sum().div(len(J)) ** (0.5 / k))
        close(found.euclidean[k], (rows.norm(dim=1) ** (2 * k)).sum().div(len(J)) ** (0.5 / k))


def test_functions_of_a_single_input(made):
    problem, J = made.problem(), made.input_jacobians()
    if len(made.inputs) > 1:
        for function in (lg.sobolev_seminorms, lg.lipschitz_lower, lg.certified_radius):
            with pytest.raises(TypeError, match="a single tensor as its input, got batch 0 with"):
                function(problem)
        return
    rows = torch.cat(J).double()
    close(lg.sobolev_seminorms(problem, orders=[1]).elementwise[1], rows.norm() / len(J) ** 0.5)
    lower = lg.lipschitz_lower(problem, radius=0.1, steps=2, restarts=1)
    close(lower.at_data, spectral(J).max())
    assert lower.value >= lower.at_data
    change = lg.logit_change(problem, 1e-3, steps=2, restarts=1)
    close(change.first_order[0] / 1e-3, spectral(J))


def test_the_first_examples(made):
    for n in range(1, len(made.examples)):
        close(made.problem().take(n).loss(), made.problem(slice(n)).loss())
