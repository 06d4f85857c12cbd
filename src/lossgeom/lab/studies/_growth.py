"""How numbers of networks grow, and why the curvature grows less than the Jacobian norm does."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Annotated, Any, Literal

import tyro

from lossgeom.lab.studies._network import MeasuredOn
from lossgeom.lab.studies._solution import JACOBIAN_MAX, LOSS, SHARPNESS, TRAIN, Recipe
from lossgeom.lab.studies._study import SeedRecords, SeedRun, require
from lossgeom.recording.metric_figures import Panel

Of = Callable[[Sequence[float]], float]  # one of what was measured along a run
Numbers = Mapping[str, float]  # of a network, by their names in its record
Part = Literal["tail", "layer", "root", "alignment"]  # what a layer's eigenvalue is made of
Shortfall = Mapping[tuple[Part, int], float]
PARTS: tuple[Part, ...] = ("tail", "layer", "root", "alignment")
PANELS = (  # of what is measured along a run
    Panel(TRAIN + LOSS, "loss", log=True),
    Panel(SHARPNESS.name, "sharpness", log=True),
    Panel(JACOBIAN_MAX.name, "largest\nJacobian norm", log=True),
)
GLOSSARY = (
    "The Gauss-Newton matrix is a sum over layers (equation 4). A layer's summand, or part, is "
    "C T_l Df_l Df_l^T T_l^T C^T: C is the root of the curvature of the loss in the outputs, which "
    "vanishes where a cross-entropy saturates, Df_l the Jacobian of the layer's outputs in its "
    "parameters, and T_l, the later or tail Jacobian, that of the model's outputs in the layer's. "
    "The ansatz is that sharpness goes with the square of the Jacobian norm |J|."
)
FIRST, LAST = itemgetter(0), itemgetter(-1)


@dataclass(frozen=True)
class ConstantRate:
    """Training far below the edge of stability, with a momentum of 0.9."""

    lr: float = 0.02
    """Learning rate."""
    batch_size: int = 500
    """Examples in a batch; all by default."""
    epochs: int = 400
    """How often all examples are gone through."""
    every: int = 50
    """Steps between measurements along training."""
    measured_on: MeasuredOn = 0

    @property
    def recipe(self) -> Recipe:
        """How networks are trained."""
        return Recipe(self.lr, self.batch_size, self.epochs)

    def check(self, examples: int) -> None:
        """Raise unless batches have no more examples than there are, and a run measurements."""
        few = 1 <= self.batch_size <= examples
        require(self, few, f"a batch_size of 1 to {examples} examples", "batch_size")
        require(self, self.measured_on >= 0, "0 or more", "measured_on")
        steps = self.recipe.steps(examples)
        require(self, 1 <= self.every <= steps, f"every from 1 to the {steps} steps", "every")


def steps(run: SeedRun[Any]) -> int:
    """How many a run has."""
    training: ConstantRate = run.study.training
    return training.recipe.steps(run.study.network.examples)


Training = Annotated[ConstantRate, tyro.conf.arg(name="")]  # whose flags have no prefix


def numbers(seed: SeedRecords[Any], of: Of, *place: Any) -> dict[str, float]:
    """One of the values that each metric has along a run; nothing if it diverged."""
    series = {} if seed.diverged(*place) else seed.series[place]
    return {name: of(values) for name, values in series.items()}


def grown(before: Numbers, after: Numbers, name: str) -> float:
    """The logarithm of how many times a number has grown; NaN where it is not known or positive."""
    ratio = after.get(name, math.nan) / (before.get(name, math.nan) or math.nan)
    return math.log(ratio) if ratio > 0 else math.nan


def along(
    seed: SeedRecords[Any], name: str, *place: Any, start: Of = FIRST, end: Of = LAST
) -> float:
    """The logarithm of how many times a number grows along a run."""
    return grown(numbers(seed, start, *place), numbers(seed, end, *place), name)


def layers(names: Iterable[str]) -> list[int]:
    """The layers of which there are mediators among some metrics."""
    return sorted(
        int(name.removeprefix("summand_")) for name in names if name.startswith("summand_")
    )


def changes(before: Numbers, after: Numbers, layer: int) -> dict[Part, float]:
    """What the terms of ``shortfall`` add to the logarithm of a layer's eigenvalue."""
    norms = (f"tail_jacobian_{layer}", f"layer_jacobian_{layer}", "root")
    factors = [2 * grown(before, after, name) for name in norms]
    alignment = grown(before, after, f"summand_{layer}") - sum(factors)
    return dict(zip(PARTS, (*factors, alignment), strict=True))


def shortfall(before: Numbers, after: Numbers) -> Shortfall:
    r"""How much less the layers' summands grow than the square of the Jacobian norm, and by what.

    .. math:: \Delta \log \|J\|^2 - \sum_l w_l \Delta \log \lambda_l
        = \sum_l w_l \Big( \Delta \log \frac{\|J\|^2}{\|T_l\|^2} - \Delta \log \|D_l\|^2
        - \Delta \log \|C\|^2 - \Delta \log a_l \Big)

    :math:`\lambda_l = a_l \|C\|^2 \|T_l\|^2 \|D_l\|^2` is the largest eigenvalue of what layer l
    adds to the Gauss-Newton matrix, see :class:`lossgeom.Mediators`, and :math:`w_l` its share of
    the sum over layers, the mean of those before and after. The terms are the explanations that
    MacDonald et al. (arXiv:2305.14683) give for exceptions from their ansatz, and what is left:
    the tail Jacobian :math:`T_l` lacks the layers up to l, so that no term holds that of the first;
    :math:`D_l` shrinks; C vanishes; and a change of the alignment :math:`a_l`.

    Args:
        before: what ``mediators`` found, and the largest Jacobian norm.
        after: the same, with another setting or of a later step.

    Returns:
        The terms, each with its weight, by their names in ``PARTS`` and layers from 1. Those of
        which a number is not known or not positive are NaN.
    """
    eigenvalues = [
        {layer: at.get(f"summand_{layer}", math.nan) for layer in layers(before)}
        for at in (before, after)
    ]
    found: dict[tuple[Part, int], float] = {}
    for layer in layers(before):
        weight = sum(of[layer] / sum(of.values()) for of in eigenvalues) / 2
        for part, change in changes(before, after, layer).items():
            whole = 2 * grown(before, after, JACOBIAN_MAX.name) if part == "tail" else 0.0
            found[part, layer] = weight * (whole - change)
    return found


def exponent(y: float, x: float) -> float:
    """The power with which one quantity goes with another, of their growths; NaN if x has none."""
    return y / x if x > 0 else math.nan


def share(some: Shortfall, of: Shortfall) -> float:
    """What share some terms have of a shortfall; NaN where nothing falls short."""
    return exponent(sum(some.values()), sum(of.values()))


def of_layer(found: Shortfall, layer: int) -> Shortfall:
    """The terms of one layer."""
    return {key: term for key, term in found.items() if key[1] == layer}


def of_part(found: Shortfall, part: Part) -> Shortfall:
    """The terms of one part, of all layers."""
    return {key: term for key, term in found.items() if key[0] == part}
