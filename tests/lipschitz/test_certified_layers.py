"""The parts that certified bounds are made of, each against brute force."""

import math
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lossgeom.linalg.arithmetic import lengths
from lossgeom.linalg.operator_norms import convolution_norm, dense_norm
from lossgeom.lipschitz.certified.activations import ACTIVATIONS as KNOWN
from lossgeom.lipschitz.certified.torch_modules import layer_of
from tests.smoothness.networks import ACTIVATIONS, jacobians, norms


def matrix_of(module: nn.Module, shape: tuple[int, ...]) -> torch.Tensor:
    """The linear part of a module, a column at a time."""
    n = math.prod(shape)
    unit = torch.eye(n, dtype=torch.float64).reshape(n, *shape)
    with torch.no_grad():
        columns = module(unit) - module(torch.zeros(1, *shape, dtype=torch.float64))
    return columns.flatten(1).T


def convolutions() -> list[tuple[nn.Module, tuple[int, ...]]]:
    torch.manual_seed(3)
    return [
        (nn.Conv1d(2, 3, 3, padding=1), (2, 9)),
        (nn.Conv1d(2, 3, 4, stride=3, padding=2, dilation=2), (2, 11)),
        (nn.Conv2d(2, 3, 3, padding=1), (2, 5, 6)),
        (nn.Conv2d(2, 4, 3, stride=2, padding=1), (2, 7, 6)),
        (nn.Conv2d(4, 4, (3, 2), stride=(1, 2), groups=2), (4, 6, 5)),
        (nn.Conv2d(4, 4, 5, stride=2, padding=2, groups=4), (4, 8, 8)),
        (nn.Conv2d(2, 2, 2, stride=2), (2, 6, 6)),
        (nn.Conv2d(1, 2, 3, dilation=2, padding="same"), (1, 6, 6)),
        (nn.Conv3d(1, 2, 2, stride=2, padding=1), (1, 4, 3, 4)),
    ]


with torch.random.fork_rng(devices=[]):
    CONVOLUTIONS = convolutions()


@pytest.mark.parametrize(("module", "shape"), CONVOLUTIONS, ids=lambda case: str(case))
def test_convolution_norms_are_above_the_matrix_and_near_it(module, shape):
    module = module.double()
    exact = torch.linalg.matrix_norm(matrix_of(module, shape), ord=2).item()
    layer = layer_of(module, shape)
    fourier = layer.fourier_norm(layer.weight)
    assert exact * (1 - 1e-12) <= fourier <= 1.6 * exact
    assert exact * (1 - 1e-12) <= layer.absolute_norm
    assert exact * (1 - 1e-12) <= layer.norm <= exact * (1 + 1e-7)


def test_a_wide_image_reaches_the_fourier_bound():
    weight = torch.randn(2, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    module = nn.Conv1d(2, 2, 3, padding=1, bias=False).double()
    module.weight.data = weight
    exact = torch.linalg.matrix_norm(matrix_of(module, (2, 200)), ord=2).item()
    bound = convolution_norm(weight, [200], [1], [1], [1], 1)
    assert exact <= bound <= 1.001 * exact


@pytest.mark.parametrize(
    "module",
    [
        nn.AvgPool2d(2),
        nn.AvgPool2d(3, stride=2, padding=1),
        nn.AvgPool2d(2, stride=1),
        nn.AdaptiveAvgPool2d(1),
        nn.AdaptiveAvgPool2d((2, None)),
        nn.Flatten(),
        nn.BatchNorm2d(3).double().eval(),
    ],
    ids=str,
)
def test_pooling_and_normalisation_are_their_matrices(module):
    shape = (3, 4, 6)
    exact = matrix_of(module, shape)
    layer = layer_of(module, shape)
    x = torch.randn(5, *shape, dtype=torch.float64)
    torch.testing.assert_close(layer.linear(x) + layer.bias, module(x))
    norm = torch.linalg.matrix_norm(exact, ord=2).item()
    assert norm * (1 - 1e-12) <= layer.norm <= norm * (1 + 1e-7)
    scale = torch.rand(5, *shape, dtype=torch.float64)
    scaled = torch.linalg.matrix_norm(exact * scale.flatten(1)[:, None], ord=2)
    assert (scaled <= layer.scaled_norm(scale) * (1 + 1e-12)).all()
    rows = (exact * scale.flatten(1)[:, None]).norm(dim=2)
    torch.testing.assert_close(layer.row_norms(scale).flatten(1), rows)


@pytest.mark.parametrize(
    ("module", "multiplicity"),
    [
        (nn.MaxPool2d(2), 1),
        (nn.MaxPool2d(2, stride=1), 4),
        (nn.MaxPool2d(3, stride=2, padding=1), 4),
        (nn.MaxPool2d(2, stride=1, dilation=2), 4),
        (nn.MaxPool2d(3, stride=2, ceil_mode=True), 4),
        (nn.MaxPool2d((2, 3), stride=(3, 4), ceil_mode=True), 1),
    ],
    ids=str,
)
def test_max_pooling(module, multiplicity):
    layer = layer_of(module, (2, 5, 6))
    x = torch.randn(7, 2, 5, 6, dtype=torch.float64)
    torch.testing.assert_close(layer(x), module(x))
    assert layer.multiplicity == multiplicity
    assert layer.norm == math.sqrt(multiplicity)
    places, certain = layer.winners(x, x)
    assert certain.all()
    torch.testing.assert_close(x.flatten(1).gather(1, places), module(x).flatten(1))
    _, certain = layer.winners(x - 10, x + 10)
    assert not certain.any()
    assert layer.touched(~certain).any()
    P, Q = jacobians(module, x), jacobians(module, x.flip(0))
    assert (norms(P) <= layer.norm * (1 + 1e-12)).all()
    assert (norms(P - Q) <= layer.difference_norm * (1 + 1e-12)).all()


@pytest.mark.quick
def test_differences_of_max_pooling_in_closed_form():
    """Rows (0, 1, 0) twice against (1, 0, 0) and (0, 0, 1)."""
    layer = layer_of(nn.MaxPool1d(2, stride=1), (1, 3))
    x = torch.tensor([[[0.0, 1.0, 0.0]], [[1.0, 0.0, 1.0]]], dtype=torch.float64)
    P, Q = jacobians(layer, x)
    assert norms(P - Q).item() == pytest.approx(3**0.5)
    assert norms(P - Q).item() <= layer.difference_norm


def slopes_bend(module):
    return not isinstance(module, (nn.ReLU, nn.LeakyReLU, nn.ReLU6, nn.Hardtanh, nn.Hardswish))


@pytest.mark.parametrize("name", ACTIVATIONS)
@settings(max_examples=60, deadline=None)
@given(first=st.floats(-8, 8), second=st.floats(-8, 8))
def test_slopes_and_values_on_intervals(name, first, second):
    module = ACTIVATIONS[name]()
    function = KNOWN[type(module)](module)
    lower, upper = (torch.tensor(z).double() for z in sorted((first, second)))
    z = (lower + (upper - lower) * torch.linspace(0, 1, 2001).double()).requires_grad_()
    values = module(z)
    (slopes,) = torch.autograd.grad(values.sum(), z, create_graph=slopes_bend(module))
    if slopes.requires_grad:
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


def test_dense_norms_are_above_the_exact_ones():
    """Of u v^T with whole numbers, whose squared norm (u u)(v v) is a whole number too."""
    generator = torch.Generator().manual_seed(0)
    below = 0
    for _ in range(50):
        u, v = (torch.randint(-99, 100, (n,), generator=generator) for n in (7, 9))
        exact = Fraction(int(u @ u) * int(v @ v))
        M = torch.outer(u, v).double()
        assert Fraction(dense_norm(M).item()) ** 2 >= exact
        below += Fraction(torch.linalg.matrix_norm(M, ord=2).item()) ** 2 < exact
    assert below > 0  # so that rounding matters here


def test_dense_norms_survive_extremes():
    for scale in (1e-200, 1.0, 1e200):
        M = scale * torch.tensor([[3.0, 0.0], [4.0, 0.0]], dtype=torch.float64)
        assert dense_norm(M).item() == pytest.approx(5 * scale)
        assert dense_norm(M).item() >= 5 * scale
    assert dense_norm(torch.zeros(2, 3, 4, dtype=torch.float64)).tolist() == [0, 0]
    bad = torch.tensor([[[math.nan, 1.0]], [[math.inf, 1.0]], [[3.0, 4.0]]], dtype=torch.float64)
    assert dense_norm(bad).tolist() == [math.inf, math.inf, pytest.approx(5.0)]


def test_lengths_survive_squares_that_vanish_or_overflow():
    x = torch.tensor([[3e-300, 4e-300], [3e300, 4e300], [0.0, 0.0]], dtype=torch.float64)
    assert lengths(x, 1).tolist() == pytest.approx([5e-300, 5e300, 0.0], rel=1e-14, abs=0)
    layer = layer_of(nn.Linear(2, 3).double().requires_grad_(False), (2,))
    layer = replace(layer, weight=x)
    rows = layer.row_norms(torch.ones(1, 2, dtype=torch.float64))[0].tolist()
    assert 5e-300 <= rows[0] <= 7.1e-300
    assert rows[1:] == pytest.approx([5e300, 0.0])
    tiny = convolution_norm(1e-200 * torch.ones(1, 1, 2).double(), [9], [1], [0], [1], 1)
    assert tiny == pytest.approx(2e-200, rel=1e-6, abs=0)


def test_the_slope_of_celu_is_known_as_well_as_torch_knows_it():
    """In its derivative, 1 / alpha is in single precision."""
    function = KNOWN[nn.CELU](nn.CELU(0.3))
    z = torch.linspace(-3, -0.001, 500, dtype=torch.float64, requires_grad=True)
    (slopes,) = torch.autograd.grad(nn.functional.celu(z, 0.3).sum(), z)
    assert (slopes - torch.exp(z.detach() / 0.3)).abs().max() > 1e-9
    least, largest = function.slopes(z.detach(), z.detach())
    assert ((least <= slopes) & (slopes <= largest)).all()
    assert (largest - least).max() < 1e-6
