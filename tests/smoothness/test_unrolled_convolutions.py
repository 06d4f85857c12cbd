"""Convolutions as matrices in the multiplicative inequality, and the norms of these."""

import pytest
import torch
from torch import Tensor, nn

import lossgeom as lg
from lossgeom.smoothness import _linear_layer
from lossgeom.smoothness._linear_layer import LinearLayer
from tests.smoothness.test_multiplicative_inequality import ROUNDING, check, double, problem_of

with torch.random.fork_rng(devices=[]):
    torch.manual_seed(0)
    CONVOLUTIONS = [
        nn.Conv2d(2, 3, 3, padding=1),
        nn.Conv2d(2, 3, (3, 2), stride=(2, 1), padding=2, bias=False),
        nn.Conv2d(2, 4, 2, dilation=2, groups=2),
        nn.Conv2d(2, 2, 2, stride=2),
        nn.Conv2d(2, 2, 3, padding="same", padding_mode="reflect"),
    ]
    LARGE = [
        *CONVOLUTIONS[:4],
        nn.Conv2d(2, 3, (1, 3), dilation=2, padding="same"),
        nn.Conv2d(2, 3, 3, stride=2, padding="valid"),
    ]


def unrolled(layer: nn.Module, x: Tensor) -> nn.Linear:
    """The layer with its matrix written out."""
    D, z = x[0].numel(), layer(x)[0].detach()
    linear = nn.Linear(D, z.numel()).double()
    units = torch.eye(D).double().reshape(D, *x.shape[1:])
    at_zero = layer(torch.zeros_like(units)).detach().flatten(1)
    linear.weight.data = (layer(units).flatten(1) - at_zero).detach().T
    linear.bias.data = at_zero[0]
    return linear


@pytest.mark.parametrize("layer", CONVOLUTIONS, ids=str)
def test_convolution_is_unrolled(layer):
    """It gives what a Linear layer with the same matrix gives."""
    layer, x = layer.double(), double(3, 2, 6, 6)
    linear = unrolled(layer, x)
    rest = nn.Sequential(nn.Tanh(), nn.Linear(linear.out_features, 2)).double()
    found = lg.multiplicative_inequality(
        problem_of(nn.Sequential(layer, nn.Flatten(), *rest), x), orders=(1, 2, 3)
    )
    dense = lg.multiplicative_inequality(
        problem_of(nn.Sequential(nn.Flatten(), linear, *rest), x), orders=(1, 2, 3)
    )
    check(found)
    for k in (1, 2, 3):
        torch.testing.assert_close(found[k].left, dense[k].left)
        assert found[k].layer_seminorm == pytest.approx(dense[k].layer_seminorm)
        if layer.padding_mode == "zeros":  # others put several weights into one entry
            assert found[k].operator_norm == pytest.approx(dense[k].operator_norm)
        else:
            assert found[k].operator_norm >= dense[k].operator_norm * (1 - ROUNDING)


def large_norm(layer: nn.Module, n: int) -> float:
    """As of one whose matrix is not written out."""
    x = double(1, layer.in_channels, n, n)
    first = LinearLayer("", layer, layer.weight.detach(), x.shape[1:], layer(x).shape[1:])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_linear_layer, "DENSE_NUMBERS", 0)
        return first.spectral_norm


@pytest.mark.parametrize("layer", LARGE, ids=str)
def test_norms_of_large_convolutions_are_bounds(layer):
    """They come closer as the input grows, because only borders differ."""
    layer, excess = layer.double(), []
    for n in (6, 12, 20):
        W = unrolled(layer, double(1, 2, n, n)).weight.detach()
        exact = torch.linalg.eigvalsh(W @ W.T)[-1].sqrt().item()  # LAPACK's SVD may not converge
        excess.append(large_norm(layer, n) / exact - 1)
    assert min(excess) >= -ROUNDING
    assert excess[2] < 0.05
    assert excess[2] <= excess[0] + ROUNDING


def test_large_convolutions(monkeypatch):
    monkeypatch.setattr(_linear_layer, "DENSE_NUMBERS", 0)
    for layer in CONVOLUTIONS:
        z = layer.double()(double(3, 2, 6, 6)).flatten(1)
        model = nn.Sequential(layer, nn.Flatten(), nn.Linear(z.shape[1], 1)).double()
        check(lg.multiplicative_inequality(problem_of(model, double(3, 2, 6, 6))))


def test_norm_of_a_convolution_without_overlap_is_exact():
    layer = nn.Conv2d(3, 5, 2, stride=2).double()
    expected = torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item()
    assert large_norm(layer, 6) == pytest.approx(expected)


def test_norm_of_a_convolution_that_costs_too_much_is_bounded_by_sums(monkeypatch):
    layer = nn.Conv2d(2, 3, 3).double()
    cheap = large_norm(layer, 6)
    monkeypatch.setattr(_linear_layer, "TRANSFORM_OPERATIONS", 1)
    magnitudes = unrolled(layer, double(1, 2, 6, 6)).weight.detach().abs()
    by_sums = (magnitudes.sum(0).max() * magnitudes.sum(1).max()).sqrt().item()
    assert large_norm(layer, 6) == pytest.approx(by_sums)
    assert cheap < by_sums
