"""Things that are computed on a device and on the CPU, and what they are computed of."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

import lossgeom as lg
from benchmarks.cases import draw
from lossgeom.lab.models import mlp, resnet18

EXACT, SOLVED, ROUNDED = 1e-9, 1e-6, 1e-4  # of products in float64, of solvers, of float32


@dataclasses.dataclass(frozen=True)
class Check:
    """One thing that is computed on the device and on the CPU.

    Attributes:
        name: of it, after that of its group and a slash.
        of: computes it.
        at: makes what that is given, on a device.
        tolerance: on the error relative to the norm of what the CPU finds.
        repeats: whether it is computed again, to see whether it is the same bits.
        may_refuse: whether the device may raise an error that says why it cannot compute it.
    """

    name: str
    of: Callable[[Any], Any]
    at: Callable[[str], Any] = str
    tolerance: float = EXACT
    repeats: bool = False
    may_refuse: bool = False

    def run(self, device: str) -> Tensor:
        """All numbers that it consists of."""
        return numbers(self.of(self.at(device)))


def numbers(thing: Any) -> Tensor:
    """All numbers of a result in one vector, in float64 on the CPU; not how long it took."""
    return torch.cat([torch.zeros(0).double(), *_parts(thing)])


def _parts(thing: Any) -> Iterator[Tensor]:
    if isinstance(thing, Tensor):
        yield thing.detach().double().cpu().flatten()
    elif isinstance(thing, (bool, int, float)):
        yield torch.tensor([float(thing)]).double()
    elif isinstance(thing, lg.Estimate):
        yield torch.tensor([thing.value]).double()
    elif isinstance(thing, (list, tuple)):
        for part in thing:
            yield from _parts(part)
    elif isinstance(thing, dict):
        yield from _parts(list(thing.values()))


def moved(case: Any, device: str) -> Any:
    """A case of the tests with its model on a device, and its data where they were."""
    return dataclasses.replace(case, model=copy.deepcopy(case.model).to(device))


def problem_of(case: Any, device: str) -> lg.Problem:
    """Its problem there."""
    problem: lg.Problem = moved(case, device).problem()
    return problem


def images(device: str, dtype: torch.dtype = torch.float64, mode: Any = "eval") -> lg.Problem:
    """A residual network on images, in two batches that are on the CPU."""
    x, y = draw(1, 12, 3, 16, 16), torch.arange(12) % 10
    model = resnet18(width=4, seed=3).to(device, dtype)
    return lg.Problem(model, "cross_entropy", [(x[:8], y[:8]), (x[8:], y[8:])], mode=mode)


def perceptron(device: str, dtype: torch.dtype = torch.float64) -> lg.Problem:
    """A perceptron that its data are on the device of."""
    x, y = draw(0, 40, 6).to(device, dtype), (torch.arange(40) % 4).to(device)
    model = mlp(6, 4, [8, 7], "tanh", 5).to(device, dtype)
    return lg.Problem(model, "cross_entropy", [(x[:25], y[:25]), (x[25:], y[25:])])


def products(make: Callable[[lg.Problem], Any], problem: lg.Problem) -> Tensor:
    """A block of products with a matrix, and one more after it, which may be a recording."""
    A = make(problem)
    V = draw(2, A.shape[1], 3).to(A.device, A.dtype)
    return torch.cat([A @ V, (A @ V[:, 0])[:, None]], 1)


def products_with(make: Callable[[lg.Problem], Any]) -> Callable[[lg.Problem], Tensor]:
    """A function of a problem: products with one of its matrices."""
    return partial(products, make)
