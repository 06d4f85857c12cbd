"""Affine layers against their matrices."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from lossgeom.lipschitz.certified.affine_maps import folded, scaling
from lossgeom.lipschitz.certified.torch_modules import layer_of


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
        (nn.ConvTranspose1d(2, 3, 3, padding=1), (2, 9)),
        (nn.ConvTranspose1d(2, 3, 4, 3, padding=2, output_padding=2, dilation=2), (2, 11)),
        (nn.ConvTranspose2d(4, 6, 3, 2, padding=1, output_padding=1, groups=2), (4, 5, 6)),
        (nn.ConvTranspose2d(6, 3, (3, 2), (1, 2), output_padding=(2, 0), groups=3, dilation=(3, 1)),
         (6, 4, 3)),
        (nn.ConvTranspose3d(1, 2, 2, stride=2, padding=1), (1, 4, 3, 4)),
    ]  # fmt: skip


with torch.random.fork_rng(devices=[]):
    CONVOLUTIONS = convolutions()


@pytest.mark.parametrize(("module", "shape"), CONVOLUTIONS, ids=lambda case: str(case))
def test_convolution_norms_are_above_the_matrix_and_near_it(module, shape):
    module = module.double()
    exact = torch.linalg.matrix_norm(matrix_of(module, shape), ord=2).item()
    layer = layer_of(module, shape)
    x = torch.randn(2, *shape, dtype=torch.float64)
    torch.testing.assert_close(layer(x), module(x))
    assert layer.rounding >= 2 * (matrix_of(module, shape) != 0).sum(1).max() * 2.0**-52
    fourier = layer.fourier_norm(layer.weight)
    assert exact * (1 - 1e-12) <= fourier <= 1.6 * exact
    assert exact * (1 - 1e-12) <= layer.absolute_norm
    assert exact * (1 - 1e-12) <= layer.norm <= exact * (1 + 1e-7)


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


def test_rows_survive_squares_that_vanish_or_overflow():
    layer = layer_of(nn.Linear(2, 3).double(), (2,))
    x = torch.tensor([[3e-300, 4e-300], [3e300, 4e300], [0.0, 0.0]], dtype=torch.float64)
    rows = replace(layer, weight=x).row_norms(torch.ones(1, 2, dtype=torch.float64))[0].tolist()
    assert 5e-300 <= rows[0] <= 7.1e-300
    assert rows[1:] == pytest.approx([5e300, 0.0])


@pytest.mark.parametrize("first", ["scale", "other"])
@pytest.mark.parametrize(("module", "shape"), CONVOLUTIONS, ids=lambda case: str(case))
def test_a_scale_is_folded_into_a_convolution(module, shape, first):
    """The same map, the same bound of its rounding, and one layer instead of two."""
    module = module.double()
    other, generator = layer_of(module, shape), torch.Generator().manual_seed(1)
    output = other(torch.zeros(1, *shape, dtype=torch.float64)).shape[1:]
    channels = shape if first == "scale" else tuple(output)
    weight, bias = torch.randn(2, channels[0], generator=generator, dtype=torch.float64)
    scale = scaling(weight, bias, bias.abs(), channels)
    layers = (scale, other) if first == "scale" else (other, scale)
    both = folded(*layers)
    x = torch.randn(3, *shape, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(both(x), layers[1](layers[0](x)))
    assert both.kind == "convolution"
    assert (both.magnitude >= both.bias.abs()).all()
