"""Rows of a comparison for theorems that rest on a sample's covering of the support."""

from __future__ import annotations

import math

from lossgeom.adversarial import logit_change
from lossgeom.bounds._given import FEW, SEARCHED, Given, covering, fresh
from lossgeom.bounds._numbers import Number
from lossgeom.bounds.bound import Bound
from lossgeom.bounds.covering import MeasuredCovering
from lossgeom.bounds.delta_good import DeltaGood
from lossgeom.bounds.generalisation_bounds import generalisation_bounds
from lossgeom.bounds.jacobian_from_separation import jacobian_from_separation
from lossgeom.bounds.lipschitz_on_support import lipschitz_on_support
from lossgeom.bounds.row import Row, shown
from lossgeom.problem import Problem

AT_SAMPLE = "the largest at the sample"
NAMES = {
    "generalisation": "cells and gradients one by one",
    "generalisation, k = 1": "by the moment of gradients",
    "generalisation, k = 1, any cells": "by that moment, for any cells",
}
MOST = 2**60  # examples that are asked for


def lipschitz_on_the_support(given: Given) -> list[Row]:
    """Theorem 4.3, beside the largest Jacobian at the sample."""
    near, convex = given.near_model, given.distribution.convex
    bound = lipschitz_on_support(
        near.jacobian, _variation(given), epsilon=given.epsilon, convex=convex
    )
    how = f"{AT_SAMPLE}: the true one is at least this"
    return [Row(given.where, bound, near.jacobian.max[0], how, unit=given.slope)]


def _variation(given: Given) -> Number:
    """The variation on balls that cover the support: no bracket where their radius is measured."""
    found = given.near_model.variation
    return found if given.distribution.certified else found.upper


def separation(given: Given) -> list[Row]:
    """Theorem 5.1, beside the largest Jacobian at the sample, which it is about."""
    if given.distribution.left_out and (given.generator is None or given.latents is not None):
        raise ValueError(
            "expected a distribution that all examples are in the support of, as theorem 5.1 goes "
            f"from one to another inside of it; {given.distribution} leaves some out"
        )
    near, inputs, fit = given.near_model, given.sample.flatten(1), given.fit
    bound = jacobian_from_separation(
        inputs, given.targets, _variation(given), fit=fit,
        epsilon=given.epsilon, convex=given.distribution.convex,
    )  # fmt: skip
    return [Row(given.where, bound, near.jacobian.max[0], AT_SAMPLE, unit=given.slope)]


def about_the_target(given: Given) -> list[Row]:
    """Theorem 6.1 in all forms, beside the mean distance at new draws."""
    found = generalisation_bounds(
        given.model, given.teacher, given.sample, given.distribution,
        generator=given.generator, epsilon=given.epsilon, searched=SEARCHED, seed=given.seed,
    )  # fmt: skip
    new = given.drawn
    return [
        Row(f"{form} form", bound, new.error, new.how, _until(bound, new.constant, given))
        for form, bound in found.items()
    ]


def by_cells(given: Given) -> list[Row]:
    """The same by gradients at the sample, whose cells are weighed."""
    new, found = given.drawn, given.cells
    return [Row(NAMES[name], found[name], new.error, new.how) for name in NAMES if name in found]


def attacked_cells(given: Given) -> list[Row]:
    """How far attacks on new draws move the outputs."""
    new = fresh(given.distribution, FEW, given.seed)
    problem = Problem(given.after_generator(given.model), "squared_error", [(new, new)])
    moved = logit_change(problem, given.radius, seed=given.seed, certify=False).lower.mean().item()
    how = f"found at {FEW} new draws: the true one is at least this"
    moving = "inputs" if given.generator is None else "the generator's inputs"
    return [Row(f"{moving} moved by {given.radius:.3g}", given.cells["robustness"], moved, how)]


def _until(bound: Bound, constant: float, given: Given) -> str:
    """Tell the number of examples from which on a bound says something, or beats a constant."""
    constant_is = f"the best constant, which is off by {shown(constant)}"
    if not bound.vacuous and bound.value < constant:
        return f"below {constant_is}"
    goal, below = (
        (bound.trivial, "not so") if bound.vacuous else (constant, f"below {constant_is},")
    )
    shrunk, support = shrinking(bound, goal), given.distribution
    if shrunk <= 0:
        still = "so" if bound.vacuous else f"not {below}"
        return f"{still} for any covering radius, because of the fit"
    radius = support.radius(len(given.sample), given.epsilon)
    enough = ""
    if not isinstance(support, MeasuredCovering):  # which says nothing of more examples
        enough = f" from {examples_for(support, given.epsilon, shrunk * radius)} on,"
    return (
        f"{below}{enough} where the covering radius of {shown(radius)} is below "
        f"{shown(shrunk * radius)}"
    )


def shrinking(bound: Bound, goal: float) -> float:
    """The factor by which the covering radius has to shrink for a bound to be a goal; 0 for none.

    The fit does not depend on it, and the variation of the Jacobian is proportional to it.

    >>> terms = {"fit": 1.0, "Jacobian": 2.0, "variation": 4.0}
    >>> shrinking(Bound(7.0, "", 0.95, {}, (), "", terms=terms), 3.0)
    0.5
    """
    terms = dict(bound.terms)
    spare, curved = goal - terms.pop("fit", 0.0), terms.pop("variation", 0.0)
    slope = sum(terms.values())
    return 2 * spare / (slope + math.sqrt(slope**2 + 4 * curved * spare)) if spare > 0 else 0.0


def examples_for(support: DeltaGood, epsilon: float, radius: float) -> str:
    """How many examples cover a support with a radius, in words.

    >>> from lossgeom.bounds.latents import Cube
    >>> examples_for(Cube(1), 0.05, 0.019807)
    'about N = 1,000'
    """
    high = 1
    while covering(support, high, epsilon) > radius:
        high *= 2
        if high > MOST:
            return f"more than N = {MOST:.0e}"
    low = high // 2
    while high - low > max(1, high // 1000):
        middle = (low + high) // 2
        low, high = (
            (low, middle) if covering(support, middle, epsilon) <= radius else (middle, high)
        )
    return f"about N = {shown(high)}"
