"""The phase diagram of random models: no edge, the edge of stability, divergence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.messages.checks import check_at_least
from lossgeom.messages.reprs import short
from lossgeom.quadratic.descent import Descent
from lossgeom.quadratic.random_models import RandomModels, random_models
from lossgeom.quadratic.recursion import descend

Phase = Literal["below", "edge", "divergence", "unsettled"]
BAND = (1.9, 2.001)  # final curvatures that count as at the edge, in rescaled units


@dataclass(frozen=True, eq=False)
class PhaseDiagram:
    r"""Outcomes over a and :math:`\lambda_0`, in rescaled units.

    Attributes:
        a: (A,) see ``random_models``.
        initial_curvature: (L,) :math:`\lambda_0`.
        initial: (A, L) median over runs of the largest eigenvalue of J J^T at the start.
        final: (A, L) median over the runs that did not diverge of the same at the end; NaN if none.
        converged: (A, L) fraction of all runs whose residuals came within the tolerance.
        diverged: (A, L) fraction of all runs.
        at_edge: (A, L) fraction of all runs that converged in the band from 1.9 to 2.001.
    """

    a: Float[Tensor, " A"]
    initial_curvature: Float[Tensor, " L"]
    initial: Float[Tensor, "A L"]
    final: Float[Tensor, "A L"]
    converged: Float[Tensor, "A L"]
    diverged: Float[Tensor, "A L"]
    at_edge: Float[Tensor, "A L"]

    __repr__ = short

    def phase(self, i: int, j: int) -> Phase:
        """``"divergence"`` or ``"edge"`` where half of the runs do, else ``"below"``.

        But ``"unsettled"`` where half of them have not ended: more steps would tell.
        """
        if self.diverged[i, j] >= 0.5:
            return "divergence"
        if self.at_edge[i, j] >= 0.5:
            return "edge"
        return "below" if self.converged[i, j] + self.diverged[i, j] > 0.5 else "unsettled"


def phase_diagram(
    a: Sequence[float],
    initial_curvature: Sequence[float],
    *,
    outputs: int,
    parameters: int,
    runs: int,
    steps: int = 20_000,
    tol: float = 1e-8,
    seed: int = 0,
) -> PhaseDiagram:
    r"""Gradient descent of random models at every pair of a and :math:`\lambda_0`.

    Small residuals (a) leave the curvature where it is, larger ones drive it up until it stays
    just below the edge, and the largest make descent diverge. All cells have the same random
    numbers, which makes them comparable.

    Cost: A L runs of ``descend``; those that converge early cost less.

    Args:
        a: A values.
        initial_curvature: L values.
        outputs: D.
        parameters: P.
        runs: for each cell.
        steps: at most.
        tol: of the residuals' norm.
        seed: of all numbers.

    Raises:
        ValueError: if a size is not positive, a value negative, or there is none.

    Source: derived here, after the abstract of Agarwala, Pedregosa and Pennington,
    arXiv:2210.04860.

    >>> diagram = phase_diagram([0.05, 4.0], [0.5], outputs=6, parameters=10, runs=5, steps=2000)
    >>> diagram.phase(0, 0), diagram.phase(1, 0)
    ('below', 'divergence')
    """
    check_at_least(1, runs=runs, cells=len(a) * len(initial_curvature))
    cells = [
        random_models(runs, outputs, parameters, a=x, initial_curvature=y, seed=seed)
        for x in a for y in initial_curvature
    ]  # fmt: skip
    found = descend(_together(cells), Descent(steps=steps, tol=tol))
    last = found.ntk[-1]
    band = found.converged & (last >= BAND[0]) & (last <= BAND[1])

    def cellwise(values: Tensor) -> Tensor:
        return values.double().view(len(a), len(initial_curvature), runs)

    return PhaseDiagram(
        torch.tensor(list(a), dtype=torch.float64),
        torch.tensor(list(initial_curvature), dtype=torch.float64),
        initial=cellwise(found.ntk[0]).quantile(0.5, dim=2),
        final=cellwise(last).nanquantile(0.5, dim=2),
        converged=cellwise(found.converged).mean(2),
        diverged=cellwise(found.diverged).mean(2),
        at_edge=cellwise(band).mean(2),
    )


def _together(cells: Sequence[RandomModels]) -> RandomModels:
    """All models of some cells, of one size and seed."""

    def every(name: str) -> Tensor:
        return torch.cat([getattr(cell, name) for cell in cells])

    return replace(
        cells[0], sigma_z=every("sigma_z"), sigma_J=every("sigma_J"), numbers=every("numbers")
    )
