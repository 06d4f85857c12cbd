"""Quadratic models that the tests share."""

import torch
from torch import Tensor

from lossgeom.quadratic import Dense, LowRank, QuadraticModel


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(shape, generator=generator, dtype=torch.float64)


def symmetric(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    A = normal(*shape, shape[-1], seed=seed, scale=scale)
    return (A + A.mT) / 2


def random_model(R: int = 5, D: int = 3, P: int = 4, own: bool = False, seed: int = 0):
    """Of moderate size: descent with a learning rate of 0.1 stays bounded for a while."""
    Q = symmetric(R, D, P, seed=seed + 2) if own else symmetric(D, P, seed=seed + 2)
    return QuadraticModel(normal(R, D, seed=seed), normal(R, D, P, seed=seed + 1), Dense(Q))


def low_rank_model(R: int = 5, D: int = 3, P: int = 4, own: bool = False):
    shape = (R,) if own else ()
    Q = LowRank(normal(*shape, D, 6, seed=4), normal(*shape, 6, P, seed=5, scale=0.5))
    return QuadraticModel(normal(R, D), normal(R, D, P, seed=1), Q)


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def dense_of(model: QuadraticModel) -> Tensor:
    """Q of every run, (R, D, P, P), from its products with unit vectors."""
    P = model.Q.parameters
    units = torch.eye(P, dtype=torch.float64)
    columns = [model.Q.contract(unit.expand(model.runs, P)) for unit in units]
    return torch.stack(columns, -1)
