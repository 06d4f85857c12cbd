"""Statistics of the records of one seed."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from lossgeom.bounds import Cube
from lossgeom.lab import statistics as stats
from lossgeom.lab.studies._study import SeedRecords
from lossgeom.lab.studies.generalisation_bound.config import SURFACE, SURFACES, TASKS, Config
from lossgeom.lab.studies.generalisation_bound.run import (
    DELTA,
    ERROR,
    FIT,
    FORMS,
    LEAST_FIT,
    OFF,
    RATES,
    STDERR,
)

PART = 4  # times a sample, where a prediction from it is tried
ERRORS = 4  # standard errors that a true error may be off
FARTHEST = 10**8  # examples that a prediction looks for


@dataclass(frozen=True)
class Seed:
    """The settings, and what was measured, by task, metric and size of the sample."""

    study: Config
    measured: Mapping[str, Mapping[str, Mapping[int, float]]]

    @classmethod
    def of(cls, records: SeedRecords[Config]) -> Seed:
        """Read each record once."""
        measured: dict[str, dict[str, dict[int, float]]] = {task: {} for task in TASKS}
        for task, metrics in measured.items():
            for row in sorted(records.at(task).rows(), key=lambda row: row["step"]):
                metrics.setdefault(row["metric"], {})[row["step"]] = row["value"]
        return cls(records.study, measured)


def values(seed: Seed, task: str, metric: str) -> Mapping[int, float]:
    """A metric by the size of the sample."""
    return seed.measured[task].get(metric, {})


def values_of(seed: Seed, task: str, metric: str) -> float:
    """A metric that a task has at one size; NaN if it has none."""
    return next(iter(values(seed, task, metric).values()), math.nan)


def at_last(seed: Seed, task: str, metric: str) -> float:
    """A metric at the largest size that all tasks have."""
    return values(seed, task, metric)[seed.study.examples_of_others[-1]]


def worst(seed: Seed) -> float:
    """The largest quotient of an error, with its standard errors, and a bound on it."""
    found = []
    for task in TASKS:
        for of in ("", OFF):
            errors, deviations = (values(seed, task, of + metric) for metric in (ERROR, STDERR))
            for form in FORMS:
                for N, bound in values(seed, task, of + form).items():
                    found.append((errors[N] + ERRORS * deviations[N]) / bound)
    return max(found)


def slope(seed: Seed, form: str) -> float:
    """The power of delta with which a form falls, without the fit that it includes."""
    bounds, fits, deltas = (values(seed, SURFACE, metric) for metric in (form, FIT, DELTA))
    less = [bounds[N] - fits[N] for N in deltas]
    return float(np.polyfit(np.log(list(deltas.values())), np.log(less), 1)[0])


def crossing(seed: Seed, form: str, level: str) -> float:
    """The size at which a form falls below a level, between two that were tried.

    It is the smallest size if the form is below there, and infinite if it is nowhere.
    """
    bounds, levels = (values(seed, SURFACE, metric) for metric in (form, level))
    above = {N: math.log(bounds[N] / levels[N]) for N in bounds}
    sizes = list(above)
    for N, then in itertools.pairwise(sizes):
        if above[N] > 0 >= above[then]:
            share = above[N] / (above[N] - above[then])
            return math.exp((1 - share) * math.log(N) + share * math.log(then))
    return sizes[0] if above[sizes[0]] <= 0 else math.inf


def predicted(seed: Seed, form: str, level: str, from_size: int) -> float:
    """The size at which a form is to fall below a level, by its rate from one size on."""
    bound, fit, delta, aim = (
        values(seed, SURFACE, metric)[from_size] for metric in (form, FIT, DELTA, level)
    )
    needed = delta * ((aim - fit) / (bound - fit)) ** (1 / RATES[form])
    cube, sizes = Cube(SURFACES[SURFACE]), range(from_size, FARTHEST)
    found = bisect_left(sizes, -needed, key=lambda N: -cube.radius(N, seed.study.epsilon))
    return float(sizes[found]) if found < len(sizes) else math.inf


def reached(seed: Seed, form: str, level: str) -> float:
    """The size at which a form is below a level; beyond the largest sample, by its rate there."""
    found = crossing(seed, form, level)
    return min(found, predicted(seed, form, level, seed.study.examples[-1]))


def foreseen(seed: Seed, form: str, level: str) -> float:
    """The size at which a form falls below a level, over what a quarter of the sample foresees.

    NaN where the form is below from the smallest size on, or nowhere, or there is no such sample.
    """
    found = crossing(seed, form, level)
    smaller = [N for N in seed.study.examples if found >= PART * N]
    if found == math.inf or not smaller:
        return math.nan
    return found / predicted(seed, form, level, smaller[-1])


def farthest(ratios: Iterator[float]) -> float:
    """The known ratio that is farthest from 1."""
    return max(stats.known(ratios), key=lambda ratio: abs(math.log(ratio)), default=math.nan)


def tightness(seed: Seed, N: int) -> float:
    """The smallest form over the true error."""
    return min(values(seed, SURFACE, form)[N] for form in FORMS) / values(seed, SURFACE, ERROR)[N]


def claimed(seed: Seed) -> float:
    """The true error of a student that is off by 1, over what the loosest form says for a fit of 0.

    The form is the largest sum of an error on the sample and other terms.
    """
    found = {m: values_of(seed, SURFACE, OFF + m) for m in (*FORMS, ERROR, LEAST_FIT)}
    return found[ERROR] / (max(found[form] for form in FORMS) - found[LEAST_FIT])
