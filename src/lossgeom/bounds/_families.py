"""Families of bounds: what each needs to be known, and its rows of a comparison."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import torch

from lossgeom.adversarial import robustness
from lossgeom.bounds._bases import BASES
from lossgeom.bounds._classification import classes
from lossgeom.bounds._complexity import Complexity
from lossgeom.bounds._coverings import (
    about_the_target,
    attacked_cells,
    by_cells,
    lipschitz_on_the_support,
    separation,
)
from lossgeom.bounds._given import FEW, SOME, Given, few
from lossgeom.bounds._prior import held_fixed
from lossgeom.bounds.bound import Bound
from lossgeom.bounds.input_gradients import input_gradient_bounds, loss_curvature
from lossgeom.bounds.kl_inverse import bernoulli_kl, kl_inverse
from lossgeom.bounds.layer_sensitivity import layer_sensitivity
from lossgeom.bounds.pac_bayes import PacBayes, pac_bayes
from lossgeom.bounds.posterior import Posterior
from lossgeom.bounds.row import Row
from lossgeom.estimate import Estimate
from lossgeom.lipschitz import lipschitz_global, lipschitz_local, lipschitz_lower
from lossgeom.problem import Problem
from lossgeom.smoothness import sobolev_seminorms
from lossgeom.stability.sgd import certify_sgd

MADE = ("generator", "latents", "covering")  # what draws from a distribution are
FROM = {
    "first layer": "by those in the first layer's weights",
    "flatness": "by those in all weights (flatness)",
}
BASIS = "decoupled"
COMMONEST = "naming the commonest class, which is wrong for a share of {:.4g} of the examples"
FOUND = "found by gradient ascent: the true one is at least this"


@dataclass(frozen=True)
class Family:
    """Bounds of one kind.

    Attributes:
        title: what they bound, and where they are from.
        rows: computes them.
        needs: names of what has to be given for that.
        uses: names of what else makes a difference where it is given.
        new: whether they are about new data.
        unit: of them, but for rows that have one of their own.
        tested: measures anew what test data say, which their bounds do not depend on.
    """

    title: str
    rows: Callable[[Given], list[Row]]
    needs: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    new: bool = False
    unit: str = ""
    tested: Callable[[Given, list[Row]], list[Row]] | None = None

    def rests_on(self, names: Collection[str]) -> bool:
        """Whether any of some arguments makes a difference to the rows."""
        made = MADE if "distribution" in self.needs else ()
        return not {"problem", *self.needs, *self.uses, *made}.isdisjoint(names)


def lipschitz(given: Given) -> list[Row]:
    """The certified Lipschitz constants, everywhere and on balls round examples."""
    near = f"within {given.radius:.3g} of {min(FEW, len(given.inputs))} examples"
    what = "the Lipschitz constant of the outputs in the input"
    anywhere = Bound(
        lipschitz_global(given.problem), what, 1.0, {}, (), "lossgeom.lipschitz_global",
        trivial=math.inf,
    )  # fmt: skip
    there = replace(
        anywhere,
        value=lipschitz_local(few(given.problem), given.radius).max().item(),
        quantity=f"{what} {near}",
        inputs={"radius": given.radius},
        source="lossgeom.lipschitz_local",
        trivial=anywhere.value,
    )
    found = [
        lipschitz_lower(few(given.problem), radius=radius, seed=given.seed).value
        for radius in (math.inf, given.radius)
    ]
    return [Row("everywhere", anywhere, found[0], FOUND), Row(near, there, found[1], FOUND)]


def under_attack(given: Given) -> list[Row]:
    """The error under the worst change of an input, by certified radii."""
    kind, data = ("training", given.problem) if given.test is None else ("test", given.test)
    found = robustness(few(data), given.radius, seed=given.seed)
    if found.certified_accuracy is None:
        raise ValueError("; ".join(found.notes))
    name = f"of {len(found.margins)} {kind} examples changed by at most {given.radius:.3g}"
    bound = Bound(
        1 - found.certified_accuracy.item(),
        f"the error {name}",
        1.0,
        {"radius": given.radius, "error without a change": 1 - found.clean_accuracy},
        (),
        "Tsuzuku et al. (arXiv:1802.04034), proposition 1, with lossgeom.certified_radius",
    )
    attacked = 1 - found.accuracy_under_attack.item()
    return [Row(name, bound, attacked, "found by an attack: the true one is at least this")]


def input_gradients(given: Given) -> list[Row]:
    """Gradients in the input, beside what those in the weights allow."""
    problem = few(given.problem, SOME)
    found = input_gradient_bounds(problem)
    return [Row(FROM[name], bound, *_gradients(problem)) for name, bound in found.items()]


def stable_input_gradients(given: Given) -> list[Row]:
    """Gradients in the input, beside what the learning rate and the batch size allow."""
    loss_curvature(given.problem)  # raises before anything takes long
    sgd = certify_sgd(given.problem, given.lr, given.batch_size)
    bound = input_gradient_bounds(given.problem, sgd=sgd)["SGD"]
    name = f"lr {given.lr:g}, batches of {given.batch_size}"
    return [Row(name, bound, *_gradients(given.problem))]


def _gradients(problem: Problem) -> tuple[float, str]:
    return sobolev_seminorms(problem, orders=[1]).elementwise[1], _at(problem)


def _at(problem: Problem) -> str:
    return f"at {sum(problem.over_batches(len)):,} examples"


def layers(given: Given) -> list[Row]:
    """How outputs respond to what layers are called with, beside what flatness allows."""
    problem = few(given.problem, SOME)
    found, every, how = layer_sensitivity(problem), "all layers", _at(problem)
    slopes, volumes = found.sensitivity_bounds[every], found.volume_bounds[every]
    rows = [Row("largest Jacobian, summed", slopes, found.sensitivity[every], how)]
    if volumes.value != slopes.value:  # of several outputs
        volume = f"the same to the power {given.outputs}"
        rows.append(Row("volume, summed", volumes, found.volume[every], how, unit=volume))
    return rows


def of_random_networks(given: Given) -> list[Row]:
    """The PAC-Bayes bound, beside the error on test data."""
    found = pac_bayes(
        given.problem, prior=given.prior, basis=BASIS, epochs=given.epochs, seed=given.seed,
        on_epoch=given.on_epoch,
    )  # fmt: skip
    inputs = found.bound.inputs
    misled = math.log(2 / inputs["delta'"]) / inputs["samples"]
    drawn = kl_inverse(found.empirical_error.value, misled)
    terms = {"error on the data": drawn, "distance from the prior": found.value - drawn}
    bound = replace(found.bound, terms=terms)
    posterior = {"mean": found.posterior.mean, "log_std": found.posterior.log_std}
    given.on_posterior(posterior)
    labels = torch.cat(classes(given.problem))
    guess = 1 - labels[labels >= 0].bincount().max().item() / inputs["N"]
    bound = replace(bound, trivial=guess, trivial_for=COMMONEST.format(guess))
    row = Row("networks drawn around it", bound, change=_nearer(bound, drawn, guess))
    return on_test_data(replace(given, posterior=posterior), [row])


def on_test_data(given: Given, rows: list[Row]) -> list[Row]:
    """The same bound, beside the error of networks from its posterior on test data."""
    (row,) = rows
    if given.test is None or row.bound is None:
        return [replace(row, measured=None, how="not at all, for want of test data")]
    inputs, basis = row.bound.inputs, BASES[BASIS](given.problem)
    found = PacBayes(
        row.bound, BASIS, inputs["KL"], inputs["lambda"], Estimate(inputs["error of samples"]),
        Posterior(given.posterior["mean"], given.posterior["log_std"], basis), (),
        held_fixed(given.problem),
    )  # fmt: skip
    error = found.stochastic_error(given.test, seed=given.seed + 1)
    how = f"on the test data, +- {error.stderr:.1g} by their draw"
    return [replace(row, measured=error.value, how=how)]


def _nearer(bound: Bound, drawn: float, guess: float) -> str:
    """How near the prior the posterior would have to be to beat the commonest class."""
    if bound.value < guess:
        return f"below the {guess:.3g} of naming the commonest class"
    if not drawn < guess:
        return "so however near the prior, because of the networks' error on the data"
    inputs = bound.inputs
    complexity = Complexity(int(inputs["N"]), inputs["delta"], inputs["b"], inputs["p"])
    spare = bernoulli_kl(drawn, guess) - complexity(0, math.log(inputs["lambda"]))
    if spare <= 0:
        return f"so with {inputs['N']:,.0f} examples, however near the prior"
    kl = spare * (inputs["N"] - 1)
    return f"not so if the KL of {inputs['KL']:.4g} nats were below {kl:.4g}"


PAPER = "MacDonald et al."
SLOPE, OUTPUTS = "units of the outputs per unit of the inputs", "units of the outputs"
RESPONSE = "units of the outputs per unit of what a layer is called with"
SHARE = "shares of the examples"
TARGET = ("distribution", "teacher")
FAMILIES = (
    Family("Lipschitz constant (certified by lossgeom)", lipschitz, unit=SLOPE),
    Family("Error under attack (certified by lossgeom)", under_attack, uses=("test",), unit=SHARE),
    Family("Gradients in the input (Ma and Ying)", input_gradients, unit=SLOPE),
    Family(
        "Gradients in the input by the stability of SGD (Ma and Ying)",
        stable_input_gradients,
        ("lr", "batch_size"),
        unit=SLOPE,
    ),
    Family("Response to what layers are called with (after Chen et al.)", layers, unit=RESPONSE),
    Family(
        f"Lipschitz constant on the support ({PAPER}, theorem 4.3)",
        lipschitz_on_the_support,
        ("distribution",),
        unit=SLOPE,
    ),
    Family(
        f"Largest Jacobian at the sample ({PAPER}, theorem 5.1)", separation, TARGET, unit=SLOPE
    ),
    Family(
        f"Distance from the teacher on new inputs ({PAPER}, theorem 6.1)",
        about_the_target,
        TARGET,
        new=True,
        unit=OUTPUTS,
    ),
    Family(
        "Distance from the teacher on new inputs by cells (after Ma and Ying)",
        by_cells,
        TARGET,
        new=True,
        unit=OUTPUTS,
    ),
    Family(
        "Change of the outputs under attack on new inputs (after Ma and Ying)",
        attacked_cells,
        TARGET,
        unit=OUTPUTS,
    ),
    Family(
        "Error on new examples (PAC-Bayes)",
        of_random_networks,
        ("prior",),
        new=True,
        unit=SHARE,
        tested=on_test_data,
    ),
)
