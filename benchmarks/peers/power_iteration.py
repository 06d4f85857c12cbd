"""The code of other papers: power iteration, one pair after the other."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.cases import Case
from benchmarks.peers._peer import Pairs, Peer, Steps
from benchmarks.plain import hessian_product, unit_vectors

POWER_STEPS = Steps(first=lambda k: 8, products=lambda k, steps: k * steps)  # noqa: ARG005


def one(case: Case, found: Tensor, v: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """The largest pair in magnitude, orthogonal to those found."""
    value = v.new_zeros(())
    for _ in range(steps):
        v = v - found @ (found.T @ v)
        v = v / v.norm()
        Hv = hessian_product(case, v)
        value, v = v @ Hv, Hv / Hv.norm()
    return value, v


def top(case: Case, k: int, steps: int) -> Pairs:
    """Find pair by pair, with a given number of steps for each."""
    values, vectors = [], case.parameters[0].new_zeros(case.P, 0)
    for start in unit_vectors(case, k):
        value, vector = one(case, vectors, start, steps)
        values.append(value)
        vectors = torch.cat([vectors, vector[:, None]], dim=1)
    return Pairs(torch.stack(values), vectors, k * steps)


PEER = Peer("double backward + power iteration", top=top, setting=POWER_STEPS)
