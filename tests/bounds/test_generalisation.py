"""Theorem 6.1 and its forms, from numbers: closed forms, and the worst that can happen."""

import math

import pytest
import torch

from lossgeom.bounds import (
    difference,
    generalisation,
    local_difference,
    local_lipschitz,
    smooth_difference,
)
from lossgeom.lipschitz import Bracket

pytestmark = pytest.mark.quick
DELTA, FIT = 0.25, 0.125
AT = torch.linspace(-DELTA, DELTA, 1001, dtype=torch.float64)  # the ball round an example at 0


def exact(*numbers):
    return [Bracket.exactly(number) for number in numbers]


def test_a_sine_at_a_thousand_points():
    delta = 4 * math.gamma(1.5) / math.sqrt(math.pi) * math.log(1000 / 0.05) / 1000
    slope, variation = 2 * math.pi, 2 * delta * 4 * math.pi**2
    bound = generalisation(delta, *exact(slope, slope, variation), epsilon=0.05)
    assert delta == pytest.approx(0.019807, abs=5e-7)
    assert bound.value == pytest.approx(0.279878, abs=5e-6)
    assert bound.certified


def test_the_example_with_the_largest_sum_decides():
    norms = Bracket(torch.tensor([1.0, 2.0]), torch.tensor([1.5, 2.0]))
    variation = Bracket(torch.tensor([0.0, 0.5]), torch.tensor([2.0, 1.0]))
    fits = Bracket(torch.tensor([0.0, 0.3]), torch.tensor([0.0, 0.4]))
    bound = generalisation(0.1, *exact(3.0), norms, variation, fit=fits, epsilon=0.1)
    assert bound.terms == pytest.approx(
        {"fit": 0.4, "target": 0.3, "Jacobian": 0.2, "variation": 0.1}
    )
    assert bound.value == pytest.approx(1.0)
    assert bound.least == pytest.approx(0.85)
    assert "note: the terms are of the ball where their sum is largest" in str(bound)
    assert "note" not in str(generalisation(0.1, *exact(1.0, 1.0, 0.0), epsilon=0.1))
    wide = Bracket.between(0.1, 0.2)
    assert generalisation(wide, *exact(1.0, 1.0, 0.0), epsilon=0.1).value == pytest.approx(0.4)


def test_brackets_in_float32_are_not_rounded_any_more():
    """Sums and products of them are in float64, as rounding is allowed for."""
    third = torch.tensor([1 / 3, 1e-9])
    once, more = Bracket(third, third), Bracket(third.double(), third.double())
    bounds = [generalisation(0.1, *exact(1.0), each, each, epsilon=0.1) for each in (once, more)]
    assert bounds[0].value == bounds[1].value
    assert bounds[0].terms == bounds[1].terms


def test_every_form_has_its_name_and_says_what_it_means():
    inputs = exact(1.0, 1.0, 0.0)
    bounds = [
        generalisation(DELTA, *inputs, epsilon=0.05),
        generalisation(DELTA, *inputs, epsilon=0.05, form="latent"),
        local_lipschitz(DELTA, *inputs[:2], epsilon=0.05),
        difference(DELTA, *inputs[:2], epsilon=0.05),
        local_difference(DELTA, *inputs[:1], epsilon=0.05),
        smooth_difference(DELTA, *inputs[:2], epsilon=0.05),
    ]
    assert len({bound.source for bound in bounds}) == len(bounds)
    for bound in bounds:
        first, *_ = str(bound).splitlines()
        assert first.startswith("the mean distance of the model from the target on new inputs is a")
        assert bound.inputs["fit"] == 0
        assert bound.meanings.keys() <= bound.inputs.keys()
        assert math.fsum(bound.terms.values()) == pytest.approx(bound.value)


@pytest.mark.parametrize("form", [generalisation, local_lipschitz, difference, smooth_difference])
def test_a_measured_number_makes_an_estimate(form):
    certified = exact(*[1.0] * (3 if form is generalisation else 2))
    assert form(DELTA, *certified, fit=Bracket.exactly(0.1), epsilon=0.05).certified
    assert not form(DELTA, *certified, fit=0.1, epsilon=0.05).certified
    estimate = form(DELTA, *certified[:-1], 1.0, epsilon=0.05, trivial=0.1)
    assert not estimate.certified
    assert estimate.vacuous


def test_what_is_infinite_is_vacuous_and_what_is_nan_says_so():
    assert smooth_difference(DELTA, *exact(1.0, math.inf), epsilon=0.05).vacuous
    assert math.isnan(difference(DELTA, 1.0, math.nan, epsilon=0.05).value)


def bent(slope, inside, fit):
    """The distance of a model that is as far off as it can be, with another slope at 0."""
    return torch.where(AT > 0, fit + inside * AT, (fit - slope * AT).abs())


# each: the bound as a function of its numbers, the numbers, and a distance that comes up to it
WORST = {
    "generalisation": (generalisation, (2.0, 1.0, 0.5), bent(1.0, 2.0 + 1.0 + 0.5, FIT)),
    "local Lipschitz": (local_lipschitz, (2.0, 1.0), bent(3.0, 3.0, FIT)),
    "difference": (difference, (1.0, 0.5), bent(1.0, 1.5, FIT)),
    "local difference": (local_difference, (1.5,), bent(1.0, 1.5, FIT)),
    "smooth difference": (smooth_difference, (1.0, 4.0), FIT + AT + 4.0 * AT.square() / 2),
}


@pytest.mark.parametrize("name", WORST)
def test_it_holds_in_the_worst_case_and_less_does_not(name):
    form, numbers, distance = WORST[name]

    def value(radius=DELTA, fit=FIT, numbers=numbers):
        return form(radius, *exact(*numbers), fit=Bracket.exactly(fit), epsilon=0.05).value

    worst = distance.max().item()
    assert worst <= value() <= worst * (1 + 1e-9)
    assert value(radius=DELTA / 2) < worst
    assert value(fit=FIT / 2) < worst
    for i in range(len(numbers)):
        halved = [number / (1 + (i == k)) for k, number in enumerate(numbers)]
        assert value(numbers=halved) < worst


def test_the_term_of_the_variation_is_four_times_that_of_the_second_derivatives():
    """Where the variation is 2 delta Lip(J), over two ends of the ball."""
    lipschitz = 3.0
    rough = difference(DELTA, *exact(0.0, 2 * DELTA * lipschitz), epsilon=0.05)
    fine = smooth_difference(DELTA, *exact(0.0, lipschitz), epsilon=0.05)
    assert rough.terms["variation"] == pytest.approx(4 * fine.terms["variation"])
    slopes = lipschitz * AT  # of d = lipschitz x^2 / 2
    assert slopes.max() - slopes.min() == pytest.approx(2 * DELTA * lipschitz)


def test_errors():
    with pytest.raises(ValueError, match="expected epsilon >= 0 and < 1, got 2"):
        difference(DELTA, 1.0, 1.0, epsilon=2.0)
    with pytest.raises(ValueError, match="expected numbers of the same examples, got 2 and 3"):
        difference(DELTA, torch.ones(2), torch.ones(3), epsilon=0.1)
    with pytest.raises(ValueError, match="expected fit >= 0, and no lower side above the upper"):
        local_lipschitz(DELTA, 1.0, 1.0, fit=-1.0, epsilon=0.1)
