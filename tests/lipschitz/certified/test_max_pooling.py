"""Max-pooling against torch's own, and its Jacobians."""

import math

import pytest
import torch
from torch import nn

from lossgeom.lipschitz.certified.torch_modules import layer_of
from tests.smoothness.networks import jacobians, norms


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
