"""Small networks in float64 that the tests of Taylor models share, and their dense expansions."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossgeom import Problem
from tests.problems import mlp
from tests.quadratic.models import normal


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(3, 9), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return self.out(F.scaled_dot_product_attention(q, k, v).mean(1))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(torch.tanh(self.first(x)), self.first.weight.T)


def seeded(make, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make().double()


NETWORKS = {
    "tanh": (lambda: mlp(3, 4, 2), (3,), 2),
    "relu": (lambda: mlp(3, 5, 4, 2, activation=nn.ReLU), (3,), 2),
    "convolution": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 2, 2), nn.Tanh(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2, 2)
        ),
        (1, 3, 4),
        2,
    ),
    "layer norm": (
        lambda: nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 2)),
        (3,),
        2,
    ),
    "batch norm": (lambda: mlp(3, 4, 2, norm=True), (3,), 2),
    "attention": (Attention, (2, 3), 2),
    "tied": (Tied, (3,), 3),
    "two linear": (lambda: mlp(3, 2, 2, activation=nn.Identity), (3,), 2),
}
MODES = {"batch norm": ("eval", "train")}
PLACES = [(name, mode) for name in NETWORKS for mode in MODES.get(name, ("eval",))]


def regression(name: str = "tanh", *, sizes=(6,), loss="squared_error", **options) -> Problem:
    """A network and normal data."""
    make, shape, outputs = NETWORKS[name]
    N = sum(sizes)
    x, y = normal(N, *shape, seed=1), normal(N, outputs, seed=2)
    batches = list(zip(x.split(list(sizes)), y.split(list(sizes)), strict=True))
    return Problem(seeded(make), loss, batches, **options)


def classification(**options) -> Problem:
    x = normal(6, 3, seed=1)
    data = [(x[:4], torch.tensor([0, 1, 2, 1])), (x[4:], torch.tensor([2, 0]))]
    return Problem(seeded(lambda: mlp(3, 5, 3)), "cross_entropy", data, **options)


def small_step(problem: Problem, seed: int = 3, scale: float = 0.3) -> Tensor:
    return normal(1, problem.theta.numel(), seed=seed, scale=scale)


def plain_outputs(problem: Problem):
    """All outputs in one row as a function of the parameters, without the library's machinery."""
    model = problem.model.train(problem.mode == "train")
    names = [name for name, _ in model.named_parameters()]
    shapes = [p.shape for p in model.parameters()]
    batches = list(problem.batches)

    def outputs(theta: Tensor) -> Tensor:
        pieces = theta.split([shape.numel() for shape in shapes])
        weights = {n: p.view(s) for n, p, s in zip(names, pieces, shapes, strict=True)}
        buffers = {n: b.clone() for n, b in model.named_buffers()}
        rows = [torch.func.functional_call(model, {**weights, **buffers}, (x,)) for x, _ in batches]
        return torch.cat([row.reshape(-1) for row in rows])

    return outputs


def central(function, theta: Tensor, step: float = 1e-5) -> Tensor:
    """Derivatives by differences, the last axis that of the parameters."""
    units = step * torch.eye(len(theta), dtype=theta.dtype)
    columns = [(function(theta + e) - function(theta - e)) / (2 * step) for e in units]
    return torch.stack(columns, -1)


def dense_expansion(problem: Problem) -> tuple[Tensor, Tensor, Tensor]:
    """The outputs, J, and Q from differences of J by reverse mode."""
    outputs, theta = plain_outputs(problem), problem.theta

    def jacobian(theta: Tensor) -> Tensor:
        with torch.enable_grad():
            return torch.autograd.functional.jacobian(outputs, theta)

    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        Q = central(jacobian, theta)
        return outputs(theta), jacobian(theta), (Q + Q.mT) / 2
