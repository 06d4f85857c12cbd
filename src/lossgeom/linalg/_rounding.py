"""What rounding adds to residuals that a Krylov basis knows."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.linalg._ritz import Ritz
from lossgeom.linalg.arithmetic import lengths

PROBES = 4  # products that show how all products of a search have rounded
ONE = 25.0  # times a first one, where that is enough


def rounded(
    ritz: Ritz, known: Float[Tensor, " k"], tol: float, generator: torch.Generator
) -> Float[Tensor, " k"]:
    """Add to residuals of the best pairs what rounding E = A V - V T - F C may add to them.

    With weights y, goals g and random numbers z of k pairs, E sum_i z_i y_i / g_i is as long as
    ||E y_i|| / g_i times the size of a normal number or longer, for any i, if z are normal, and
    for one of two signs of z_i or both, if they are signs. A first product, with normal numbers, is
    enough where 25 times its length leaves all but four pairs within the tolerance, which is too
    little in 3.2 of 100 cases at most; else the longest of four with signs, in 6 at most.
    """
    scales = ritz.scales[: len(known)]
    goals = scales.clamp(min=torch.finfo(torch.float64).tiny)
    numbers = torch.randn(len(known), 1 + PROBES, generator=generator).double()
    residuals = known + ONE * _longest(ritz, goals, numbers[:, :1]) * goals / goals.min()
    if (residuals > tol * scales).sum() <= PROBES:  # whose products cost no more than to go on
        return residuals
    return known + _longest(ritz, goals, numbers[:, 1:].sign()) * goals / goals.min()


def _longest(ritz: Ritz, goals: Float[Tensor, " k"], numbers: Float[Tensor, "k p"]) -> float:
    """The longest of several sums of what rounding did to pairs, times the least goal."""
    basis, k = ritz.basis, len(goals)
    combined = (ritz.weights[:, :k] @ (numbers * (goals.min() / goals)[:, None])).T
    sizes = lengths(combined)
    combined = combined / sizes[:, None]
    known = combined @ torch.cat([basis.projection, basis.coupling]).T
    errors = basis.products.of(combined.to(basis.rows) @ basis.rows[: len(ritz.values)])
    errors -= known.to(errors) @ basis.rows
    return float((sizes * lengths(errors).cpu()).max())
