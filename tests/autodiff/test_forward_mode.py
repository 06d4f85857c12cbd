"""Derivatives along a direction, of functions that are differentiated backwards, too."""

import pytest
import torch
from torch.autograd import forward_ad

from lossgeom.autodiff.forward_mode import derivative_along

X, V = torch.tensor([0.3, -1.2, 2.0]).double(), torch.tensor([1.0, 2.0, -1.0]).double()


@pytest.mark.quick
def test_tangents_have_no_graph_of_their_own():
    tangents = []

    def field(x):
        y = x.sin() * x
        z = torch.stack([y, y.exp()]).sum(0)
        tangents.extend(forward_ad.unpack_dual(t).tangent for t in (y, z))
        (gradient,) = torch.autograd.grad(z.sum(), x)
        return gradient

    _, value, derivative = derivative_along(field, X, V)
    assert not any(tangent.requires_grad for tangent in tangents)

    def total(x):
        y = x.sin() * x
        return (y + y.exp()).sum()

    torch.testing.assert_close(value, torch.autograd.functional.jacobian(total, X))
    torch.testing.assert_close(derivative, torch.autograd.functional.hvp(total, X, V)[1])


def test_the_value_keeps_its_graph():
    leaf, value, derivative = derivative_along(lambda x: x.view(3, 1).exp() * x, X, V)
    (pulled,) = torch.autograd.grad(value.sum(), leaf)
    torch.testing.assert_close(pulled, X.exp() * X.sum() + X.exp().sum())
    expected = (X.exp() * V)[:, None] * X + X.exp()[:, None] * V
    torch.testing.assert_close(derivative, expected)
