"""Ranges of activations and their derivatives, against many points."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lossgeom.lipschitz.certified.activations import ACTIVATIONS as KNOWN
from lossgeom.lipschitz.certified.activations import Monotone, prelu
from lossgeom.lipschitz.certified.waves import COSINE, SINE
from tests.smoothness.networks import ACTIVATIONS

WAVES = {"sine": SINE, "cosine": COSINE}  # torch has no modules for them


def slopes_bend(module):
    return not isinstance(module, (nn.ReLU, nn.LeakyReLU, nn.ReLU6, nn.Hardtanh, nn.Hardswish))


@pytest.mark.parametrize("name", ACTIVATIONS)
@settings(max_examples=60, deadline=None)
@given(first=st.floats(-8, 8), second=st.floats(-8, 8))
def test_slopes_and_values_on_intervals(name, first, second):
    module = ACTIVATIONS[name]()
    function = WAVES.get(name) or KNOWN[type(module)](module)
    lower, upper = (torch.tensor(z).double() for z in sorted((first, second)))
    z = (lower + (upper - lower) * torch.linspace(0, 1, 2001).double()).requires_grad_()
    values = module(z)
    (slopes,) = torch.autograd.grad(values.sum(), z, create_graph=slopes_bend(module))
    if slopes_bend(module):
        (bends,) = torch.autograd.grad(slopes.sum(), z)
        assert bends.abs().max() <= function.bend(lower, upper) + 1e-12
    slopes = slopes.detach()
    for bounds, numbers in (
        (function.slopes(lower, upper), slopes),
        (function.values(lower, upper), values.detach()),
    ):
        assert bounds[0] <= numbers.min() + 1e-14
        assert numbers.max() <= bounds[1] + 1e-14
        resolution = 1e-7 + 0.01 * float(upper - lower)
        jumps = sum(lower <= point <= upper for point, *_ in function.slope.breaks)
        if not jumps:
            assert bounds[1] - bounds[0] <= numbers.max() - numbers.min() + resolution


@pytest.mark.parametrize(
    ("module", "constant"),
    [
        (nn.ReLU(), 1),
        (nn.Tanh(), 1),
        (nn.Sigmoid(), 0.25),
        (nn.GELU(), 1.128904145),
        (nn.SiLU(), 1.099839320),
        (nn.ELU(), 1),
        (nn.ELU(2.0), 2),
        (nn.LeakyReLU(0.2), 1),
        (nn.LeakyReLU(-3.0), 3),
        (nn.Softplus(), 1),
        (nn.Hardswish(), 1.5),
        (nn.GELU("tanh"), 1.128993069),
        (nn.SELU(), 1.0507009873554805 * 1.6732632423543772),
    ],
    ids=str,
)
def test_lipschitz_constants_of_activations(module, constant):
    assert KNOWN[type(module)](module).lipschitz == pytest.approx(constant, abs=1e-8)


@pytest.mark.parametrize("weight", [0.25, -0.5, 3.0])
def test_prelu_is_leaky_relu_with_its_weights(weight):
    """In intervals on both sides of zero and across it, one weight for each of two channels."""
    function = prelu(torch.tensor([weight, -2.0]), (2, 4))
    ends = torch.tensor([[-3.0, -1.0], [-2.0, 0.0], [-1.0, 2.0], [1.0, 3.0]]).double().T
    lower, upper = ends[:, None].expand(2, 2, 4)
    for i, below in enumerate((weight, -2.0)):
        leaky = KNOWN[nn.LeakyReLU](nn.LeakyReLU(below))
        for ours, its in (
            *zip(function.slopes(lower, upper), leaky.slopes(lower[i], upper[i]), strict=True),
            *zip(function.values(lower, upper), leaky.values(lower[i], upper[i]), strict=True),
            (function.bend(lower, upper), leaky.bend(lower[i], upper[i])),
        ):
            torch.testing.assert_close(ours[i], its)
    assert function.lipschitz == max(1.0, abs(weight), 2.0)
    x = torch.randn(5, 2, 4, dtype=torch.float64)
    module = nn.PReLU(2)
    module.weight.data = torch.tensor([weight, -2.0])
    torch.testing.assert_close(function(x), module.double()(x))


def test_the_slope_of_celu_is_known_as_well_as_torch_knows_it():
    """In its derivative, 1 / alpha is in single precision."""
    function = KNOWN[nn.CELU](nn.CELU(0.3))
    z = torch.linspace(-3, -0.001, 500, dtype=torch.float64, requires_grad=True)
    (slopes,) = torch.autograd.grad(nn.functional.celu(z, 0.3).sum(), z)
    assert (slopes - torch.exp(z.detach() / 0.3)).abs().max() > 1e-9
    least, largest = function.slopes(z.detach(), z.detach())
    assert ((least <= slopes) & (slopes <= largest)).all()
    assert (largest - least).max() < 1e-6


@pytest.mark.parametrize("turns", [0, -1, 3, 10**9])
def test_waves_have_their_crests_in_every_period(turns):
    middle = torch.tensor(2 * torch.pi * turns + torch.pi / 2, dtype=torch.float64)
    short = middle - 0.1, middle + 0.2
    least, largest = SINE.values(*short)
    assert largest == pytest.approx(1, abs=1e-12)
    assert least == pytest.approx(torch.sin(middle + 0.2).item(), abs=1e-12)
    assert SINE.slopes(*short)[0] == pytest.approx(torch.cos(middle + 0.2).item(), abs=1e-12)
    assert SINE.bend(*short) == pytest.approx(1, abs=1e-12)
    before = middle - 0.2, middle - 0.1
    assert SINE.values(*before)[1] == pytest.approx(torch.sin(middle - 0.1).item(), abs=1e-12)
    for part in (SINE.values, SINE.slopes, COSINE.values, COSINE.slopes):
        for end in (middle + 6.3, torch.full_like(middle, torch.inf)):
            assert torch.stack(part(middle, end)).tolist() == pytest.approx([-1, 1], abs=1e-12)


def test_a_crest_in_the_wrong_place_is_noticed():
    moved = Monotone(torch.sin, ((torch.pi, 1.0), (0.0, -1.0)), period=2 * torch.pi)
    ends = torch.tensor([1.0, 2.0]).double()
    assert moved.range(*ends)[1] < torch.sin(torch.tensor(1.5)) < SINE.values(*ends)[1]
