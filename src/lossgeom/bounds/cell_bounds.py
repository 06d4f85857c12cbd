"""Error and attacks of a model on new inputs, bounded by what is certified round a sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lossgeom.bounds._near import Difference, Near, in_double, outputs_at
from lossgeom.bounds._numbers import ROUNDING
from lossgeom.bounds.bound import Assumption, Bound
from lossgeom.bounds.cells import IN_CELLS, cell_generalisation, cell_robustness
from lossgeom.bounds.covering import covering_radius
from lossgeom.bounds.delta_good import DeltaGood
from lossgeom.bounds.generalisation_bounds import CONSTANT
from lossgeom.bounds.latents import Cube
from lossgeom.linalg import random_numbers
from lossgeom.linalg.arithmetic import lengths
from lossgeom.lipschitz import Bracket
from lossgeom.messages.checks import check_number
from lossgeom.messages.extras import required

FRESH = 71  # and the next, of random numbers that no sample of the same seed has


def cell_bounds(
    model: nn.Module,
    target: nn.Module,
    inputs: Float[Tensor, "n D"],
    distribution: DeltaGood,
    *,
    attack: float = 0.1,
    orders: Sequence[int] = (1,),
    fresh: int = 20_000,
    epsilon: float = 0.05,
    searched: int = 16,
    seed: int = 0,
) -> dict[str, Bound]:
    """Bound error and attacks of a model on new inputs, with all numbers certified.

    Cells and their radius are exact on an interval, and counted with fresh points elsewhere, by
    :func:`lossgeom.bounds.covering_radius` and by Hoeffding's inequality, with a half of epsilon
    each, and points of its own, since the numbers whose mean is taken depend on the radius.
    As for :func:`generalisation_bounds`, modules are copied to eval mode and float64.

    Cost: that of :func:`lossgeom.lipschitz_local` on four balls round each example, and a search
    for the nearest example of each fresh point.

    Args:
        model: f, from (n, D) to (n, C), of layers that bounds are known for.
        target: f*, likewise.
        inputs: the examples, from the distribution or not.
        distribution: of new inputs.
        attack: rho.
        orders: k, for bounds by moments.
        fresh: points to find the radius with, and as many to count cells with.
        epsilon: the probability that these mislead, in (0, 1); there is none on an interval.
        searched: examples on whose balls ascents look for lower estimates.
        seed: of the fresh points and the ascents, drawn on the CPU.

    Returns:
        ``"generalisation"`` and ``"robustness"``; for each order k also ``"generalisation, k = 1"``
        by the moment of gradients, and ``"generalisation, k = 1, any cells"`` without masses. What
        is trivial is the range of the target at the examples, the diagonal of the box of its
        values.

    Raises:
        TypeError, ValueError, NonFiniteError: as :func:`lossgeom.lipschitz_global`.

    >>> from lossgeom.lab.models import mlp
    >>> target, model = (mlp(1, 1, [8], "tanh", seed).double() for seed in (0, 1))
    >>> found = cell_bounds(model, target, Cube(1).sample(30), Cube(1), searched=1)
    >>> found["generalisation"].certified, found["generalisation"].confidence
    (True, 1.0)
    """
    f, goal, x = in_double(model), in_double(target), inputs.detach().double()
    masses, radius, deviation = _cells(x, distribution, fresh, epsilon, seed)
    here, further = (Near(f, x, r, searched, seed) for r in (radius, radius + attack))
    there, apart = (Near(each, x, radius, searched, seed) for each in (goal, Difference(f, goal)))
    within = Bracket.exactly(radius) if distribution.certified else radius
    counted: dict[str, Any] = {"deviation": deviation, "epsilon": epsilon if deviation else 0.0}
    values = outputs_at(goal, x)
    spread = lengths(values.amax(0) - values.amin(0), 0).item()

    def distance(masses: Bracket | None, order: int | None = None) -> Bound:
        return cell_generalisation(
            masses, within, here.jacobian, here.curvature, there.lipschitz,
            fit=apart.size, order=order, trivial=spread, **counted,
        )  # fmt: skip

    found = {
        "generalisation": distance(masses),
        **{f"generalisation, k = {k}": distance(masses, k) for k in orders},
        **{f"generalisation, k = {k}, any cells": distance(None, k) for k in orders},
        "robustness": cell_robustness(
            masses, within, here.jacobian, further.curvature, attack, **counted
        ),
    }
    return {name: _checked(bound, distribution) for name, bound in found.items()}


def _checked(bound: Bound, distribution: DeltaGood) -> Bound:
    """A bound all of whose numbers were certified here."""
    drawn = Assumption(f"new inputs are drawn from {distribution}", "declared")
    checked = (
        replace(each, status="checked") if each != IN_CELLS or distribution.certified else each
        for each in bound.assumptions
    )
    known = CONSTANT.format(bound.trivial) if math.isfinite(bound.trivial) else ""
    return replace(bound, assumptions=(drawn, *checked), trivial_for=known)


def interval_cells(
    points: Float[Tensor, "n 1"], side: float = 1.0
) -> tuple[Float[Tensor, " n"], float]:
    """The shares of an interval from 0 to its side that are nearest to each point, and the radius.

    >>> masses, radius = interval_cells(torch.tensor([[0.25], [0.75]]))
    >>> masses.tolist(), radius
    ([0.5, 0.5], 0.25)
    """
    ordered, places = points.double().flatten().sort()
    middles = ((ordered[1:] + ordered[:-1]) / 2).clamp(0, side)  # of points outside, too
    ends = torch.cat([ordered.new_zeros(1), middles, ordered.new_full((1,), side)])
    masses = torch.empty_like(ordered)
    masses[places] = ends.diff() / side
    radius = torch.maximum((ends[:-1] - ordered).abs(), (ends[1:] - ordered).abs()).max()
    return masses, float(radius)


def _cells(
    inputs: Tensor, distribution: DeltaGood, fresh: int, epsilon: float, seed: int
) -> tuple[Bracket, float, float]:
    """Masses, radius, and how far a mean over the masses may be off, as a share of the range."""
    if isinstance(distribution, Cube) and distribution.dimension == 1:
        masses, radius = interval_cells(inputs, distribution.side)
        return Bracket(masses, masses), radius * (1 + ROUNDING), 0.0
    check_number("epsilon", epsilon, 0, 1)
    points, others = (distribution.draw(fresh, random_numbers(seed, tag=FRESH + k)) for k in (0, 1))
    covered = covering_radius(inputs, points, confidence=1 - epsilon / 2, distribution=distribution)
    tree = required("scipy.spatial").cKDTree(inputs.double().cpu().numpy())
    nearest = torch.as_tensor(tree.query(others.double().numpy())[1])
    masses = nearest.bincount(minlength=len(inputs)).double() / fresh
    deviation = math.sqrt(math.log(2 / epsilon) / (2 * fresh))
    return Bracket(masses, masses), covered.whole_radius, deviation
